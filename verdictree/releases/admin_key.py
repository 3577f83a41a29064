"""The key that locks a server's control API: its name on the wire, and the files that hold it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from verdictree.errors import InvalidAdminKey
from verdictree.releases.state_folder import state_folder

ADMIN_KEY_NAME = "verdictree-admin"
_KEY_FILE = "admin-key"
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


def publish_new(repository: Path) -> str:
    """Make a key and leave it where only this user's `verdictree rollout` on the repository finds it."""
    key = secrets.token_hex(32)
    path = key_file(repository)
    temporary = path.with_suffix(".tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(key + "\n")
        temporary.replace(path)
    except OSError as exc:
        if path.is_file():  # a full disk must not keep a server from starting: the last one's key does as well
            return read_admin_key(path)
        raise InvalidAdminKey(
            f"expected to write the admin key to '{path}', got {exc.strerror or exc}; give one with --admin-key-file"
        ) from exc
    return key


def published(repository: Path) -> str | None:
    """The key that the server on this repository has made; None where it made none, or for another user."""
    if not repository.is_dir():
        return None
    path = key_file(repository)
    try:
        return read_admin_key(path) if path.is_file() else None
    except InvalidAdminKey:
        return None


def key_file(repository: Path) -> Path:
    """Where a server on this repository leaves the key that it made."""
    return state_folder(repository) / _KEY_FILE
