"""How the channel to the server is opened: TLS and gRPC's channel options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from verdictree_client import address
from verdictree_client.errors import InvalidSettings

Pathname = str | os.PathLike[str]

CHANNEL_OPTIONS = [
    # A request is at most conversation.MAX_BYTES, a verdict a few kB; a longer answer is not from a guard.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # A retry is futile while the channel itself waits to reconnect, which by default it does for a second and more.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Finds a peer that vanished without closing; only with calls in flight, since servers cut off idle clients' pings.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
]


@dataclass(frozen=True)
class TLS:
    """PEM files of an encrypted connection; with a client key and its certificate chain, a mutual one.

    `root_certificates=None` trusts the roots that gRPC ships. Raises InvalidSettings for a key without its chain or
    the reverse, and for a file that is not there (a FileNotFoundError too), cannot be read or holds no PEM.
    """

    root_certificates: Pathname | None = None
    client_key: Pathname | None = None
    client_certificate_chain: Pathname | None = None

    def __post_init__(self) -> None:
        if (self.client_key is None) != (self.client_certificate_chain is None):
            raise InvalidSettings("expected client key and certificate chain together, got one of them; give both")
        for path in (self.root_certificates, self.client_key, self.client_certificate_chain):
            if path is not None:
                _check_pem(Path(path))


class _NoSuchFile(InvalidSettings, FileNotFoundError):
    pass


def _check_pem(path: Path) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise _NoSuchFile(f"expected a PEM file at {path}, got none; check the path") from exc
    except (OSError, ValueError) as exc:  # a folder, no permission; a NUL in the path
        raise InvalidSettings(f"expected a PEM file at {path}, got one that cannot be read ({exc})") from exc
    if b"-----BEGIN " not in content:
        raise InvalidSettings(f"expected a PEM file at {path}, got one without a BEGIN line; convert it to PEM")


def channel_arguments(url: str, tls: TLS | None) -> tuple[Any, ...]:
    """The arguments of grpc's `secure_channel`, or of `insecure_channel` where `tls` is None, sync and asyncio alike.

    Raises InvalidSettings for an address that is none.
    """
    target, options = address.read(url), CHANNEL_OPTIONS
    if tls is None:
        return target, options
    files = (tls.root_certificates, tls.client_key, tls.client_certificate_chain)
    credentials = grpc.ssl_channel_credentials(*(None if file is None else Path(file).read_bytes() for file in files))
    return target, credentials, options


def open_channel(library: Any, arguments: tuple[Any, ...]) -> Any:
    """A channel of `library`, which is `grpc` or `grpc.aio`."""
    return (library.secure_channel if len(arguments) == 3 else library.insecure_channel)(*arguments)


def triton_arguments(url: str, tls: TLS | None) -> dict[str, Any]:
    """The keyword arguments of tritonclient's `InferenceServerClient`, sync and asyncio alike.

    Raises InvalidSettings for an address that is none.
    """
    arguments: dict[str, Any] = {"url": address.read(url), "channel_args": CHANNEL_OPTIONS}
    if tls is not None:
        arguments |= {
            "ssl": True,
            "root_certificates": tls.root_certificates,
            "private_key": tls.client_key,
            "certificate_chain": tls.client_certificate_chain,
        }
    return arguments
