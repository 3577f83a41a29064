"""Three TCP ports for one server: the ones that were asked for if they are free, any free ones otherwise."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from verdictree_serving.errors import PortInUse, ServingError


@dataclass(frozen=True)
class Ports:
    """The TCP ports of Triton's three endpoints; 0 stands for any free port, None for one that is not open."""

    http: int | None = None
    grpc: int = 0
    metrics: int = 0

    def resolve(self, address: str) -> Ports:
        """Ports that are free on `address` now, all different; raise `PortInUse` for a taken one."""
        with contextlib.ExitStack() as held:
            # Holding each socket until all are chosen keeps the three apart.
            http, grpc, metrics = (
                None if port is None else int(_bind(held, address, name, port).getsockname()[1])
                for name, port in vars(self).items()
            )
            return Ports(http, grpc or 0, metrics or 0)


def _bind(held: contextlib.ExitStack, address: str, name: str, port: int) -> socket.socket:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not take a port
    try:
        listener.bind((address, port))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{name} port {port} on {address} is in use: stop its owner, or pass 0 for any free port"
            ) from exc
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ServingError(f"cannot open {name} port {port} on {address}: {reason}") from exc
    return listener


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`; ServingError for what is no IPv4 address and no host."""
    try:
        return ipaddress.ip_address(socket.gethostbyname(address)).is_loopback
    except OSError as exc:
        raise ServingError(f"expected an IPv4 address or a host's name, got {address!r}: {exc}") from exc


@contextlib.contextmanager
def listening(address: str, port: int | None, preferred: int) -> Iterator[socket.socket]:
    """A bound TCP socket: on `port`, or, for None, on `preferred` if that is free and on any free one otherwise."""
    with contextlib.ExitStack() as held:
        yield _preferred(held, address, preferred) if port is None else _bind(held, address, "health", port)


def _preferred(held: contextlib.ExitStack, address: str, port: int) -> socket.socket:
    try:
        return _bind(held, address, "health", port)
    except PortInUse:
        return _bind(held, address, "health", 0)
