"""The policies that come with the software: a name such as `embedded` stands for the file in `policies/`."""

from __future__ import annotations

from pathlib import Path

import verdictree

_FOLDER = Path(verdictree.__file__).parent / "policies"  # in a checkout a link to the folder at the top


def names() -> tuple[str, ...]:
    """The names of all that ship, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def locate(given: Path) -> Path:
    """The file that is meant: that of a shipped policy where its bare name is given and no file has that name."""
    shipped = str(given) in names() and not given.is_file()
    return _FOLDER / f"{given}.yaml" if shipped else given
