"""The key that locks a server's control API: its name on the wire, and the file that holds it."""

from __future__ import annotations

import re
from pathlib import Path

from verdictree.errors import InvalidAdminKey

ADMIN_KEY_NAME = "verdictree-admin"
_KEY = re.compile(r"[A-Za-z0-9_.~+/-]{16,}")  # Triton splits its option at `=` and `:`


def read_admin_key(path: Path) -> str:
    """The key in a key file; InvalidAdminKey, naming the file and never the key, where it holds none."""
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidAdminKey(f"expected an admin key in '{path}', but it cannot be read ({exc})") from exc
    if not _KEY.fullmatch(key):
        raise InvalidAdminKey(
            f"expected at least 16 letters, digits or any of _.~+/- in '{path}', got something else; "
            f"make a key: openssl rand -hex 32 > '{path}'"
        )
    return key
