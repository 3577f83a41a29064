"""What lies where a file should be: a pointer to it, a web page that says why not, or nothing."""

from __future__ import annotations

from pathlib import Path

from verdictree.errors import UnsupportedGuard

_HEAD = 64
_AGAIN = "download it again"
# Of a file's first bytes, what it is instead, and the fix.
_IMPOSTORS = {
    b"version https://git-lfs": ("a Git LFS pointer", "run `git lfs pull` in its folder"),
    b"version https://hawser": ("a Git LFS pointer", "run `git lfs pull` in its folder"),
    b"# xet version": ("a Git Xet pointer", "run `git xet` or download it again"),
    b"/annex/objects/": ("a git-annex pointer", "run `git annex get` in its folder"),
    b"../": ("the text of a symbolic link", "clone the repository where links can be made, or download it again"),
    b"<!doctype html": ("a web page", "log in where it comes from, and download it again"),
    b"<html": ("a web page", "log in where it comes from, and download it again"),
    b"entry not found": ("the words of a server that does not have it", "look up the file's name where it comes from"),
    b"invalid username or password": ("the words of a server that wants a login", "log in, and download it again"),
}


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file that is read.

    Raises UnsupportedGuard for one that cannot be read, is no file, is empty, or is something in a file's place.
    """
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no file: the link leads nowhere" if path.is_symlink() else "none"
            raise UnsupportedGuard(f"expected a file at '{path}', got {what}; {_AGAIN}")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as exc:
        raise unreadable(path, exc) from exc
    if not head:
        raise UnsupportedGuard(f"expected the content of '{path}', got an empty file; {_AGAIN}")
    start = head.lstrip().lower()
    for mark, (what, fix) in _IMPOSTORS.items():
        if start.startswith(mark):
            raise UnsupportedGuard(f"expected the content of '{path}', got {what}; {fix}")
    return head


def unreadable(path: Path, exc: OSError) -> UnsupportedGuard:
    """The error for a path that the system does not let us read."""
    return UnsupportedGuard(
        f"expected a checkpoint that can be read, got '{path}' ({exc.strerror or exc}); run as the user that owns "
        "it, or change its mode"
    )
