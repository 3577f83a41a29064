"""The options by which a command reaches a running server: its address, and TLS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree.wire import URL

if TYPE_CHECKING:
    from verdictree_client import TLS

_FILE = click.Path(path_type=Path)
url_option = click.option("--url", default=URL, show_default=True, help="The server's gRPC address.")
_TLS = (
    click.option("--tls-root", type=_FILE, help="Connect with TLS, trusting this root certificate (PEM)."),
    click.option("--tls-key", type=_FILE, help="Your private key (PEM), for a server that asks for certificates."),
    click.option("--tls-certificate", type=_FILE, help="Your certificate chain (PEM), with --tls-key."),
)


def tls_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the TLS options to a command; `tls` reads what they were given."""
    for option in reversed(_TLS):
        command = option(command)
    return command


def tls(options: Mapping[str, Any]) -> TLS | None:
    """What the TLS options say, None where none was given; InvalidSettings for files that do not do."""
    root, key, certificate = (options[name] for name in ("tls_root", "tls_key", "tls_certificate"))
    if not (root or key or certificate):
        return None
    from verdictree_client import TLS

    return TLS(root, key, certificate)


def api_key(path: Path | None) -> str | None:
    """The API key in a file, None where none is given; InvalidSettings, never quoting it, for another file."""
    from verdictree_client import InvalidSettings

    try:
        return None if path is None else path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"expected an API key in '{path}', but it cannot be read; give its path") from exc
