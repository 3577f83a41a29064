"""A server's gRPC address as people write it, and what to write instead where it is none."""

from __future__ import annotations

import re

from verdictree.text.visible import is_visible, quoted
from verdictree_client.errors import InvalidSettings

_FIX = "give HOST:PORT of the server's gRPC endpoint, such as 127.0.0.1:8001 or [::1]:8001"
_TARGETS = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:", "vsock:")  # gRPC's own names of a server
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:/@?#\[\]\\]+):(\d{1,5})", re.ASCII)


def read(url: str) -> str:
    """The address as gRPC takes it: without white space around it, `grpc://` before it and a slash after it.

    Raises InvalidSettings for what is no gRPC address: another scheme, a path, no port, white space inside.
    """
    if not isinstance(url, str):
        raise InvalidSettings(f"expected an address as text, got {type(url).__name__}; {_FIX}")
    text = str.__str__(url).strip()
    if text.startswith(_TARGETS):
        return text
    address = re.sub(r"(?i)^grpc://", "", text).removesuffix("/")
    match = _HOST_AND_PORT.fullmatch(address)
    if match and 0 < int(match[2]) < 65536 and all(is_visible(c) and not c.isspace() for c in address):
        return address
    raise InvalidSettings(f"expected a gRPC address, got {quoted(url)}{_fault(text, address)}; {_FIX}")


def _fault(text: str, address: str) -> str:
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() in ("https", "grpcs"):
        return f": leave out {scheme}:// and give the TLS files by themselves (tls=TLS(…), --tls-root)"
    if separator and scheme.lower() != "grpc":
        return f": leave out {scheme}://, and mind that the gRPC port is another than HTTP's"
    if any(c.isspace() or not is_visible(c) for c in address):
        return ", which holds white space or an invisible character"
    if "/" in address:
        return ", which holds a path"
    if address.count(":") > 1 and "[" not in address:
        return ": an IPv6 address stands in brackets"
    port = address.rpartition(":")[2]
    return ", whose port is none" if ":" in address and port.isdigit() else ", which names no port"
