"""Three TCP ports for one server: the ones that were asked for if they are free, any free ones otherwise."""

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

from verdictree_serving.errors import PortInUse, ServingError


@dataclass(frozen=True)
class Ports:
    """The TCP ports of Triton's three endpoints; 0 stands for any free port."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0

    def resolve(self, address: str) -> "Ports":
        """Return ports that are free on ``address`` now, all different; raise `PortInUse` for a taken one."""
        with contextlib.ExitStack() as held:
            # Holding each socket until all are chosen keeps the three apart.
            return Ports(**{name: _bind(held, address, name, port) for name, port in vars(self).items()})


def _bind(held: contextlib.ExitStack, address: str, name: str, port: int) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not take a port
    try:
        listener.bind((address, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{name} port {port} on {address} is in use: stop its owner, or pass 0 for any free port"
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ServingError(f"cannot open {name} port {port} on {address}: {reason}") from error
    return int(listener.getsockname()[1])
