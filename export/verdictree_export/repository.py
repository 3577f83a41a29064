"""The model repository on disk: where a release's files lie, and which release the ensemble is pinned to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from verdictree.errors import InvalidRelease
from verdictree.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST, TOKENIZER_MODEL, Release, sha256

ENSEMBLE = "guard"
GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
_TEMPLATE = Path(__file__).parent / "model_repository"
_ADAPTER = "model.py"


class Staging:
    """A release under construction: written beside the repository's releases, moved among them when it is whole."""

    def __init__(self, repository: Path, number: int) -> None:
        """Prepare release `number`; the repository is created where there is none."""
        _copy_template(repository)
        self._repository = repository
        self._number = number
        self._directory = repository / f".release-{number}"
        shutil.rmtree(self._directory, ignore_errors=True)
        for model in COMPOSING_MODELS:
            (self._directory / model).mkdir(parents=True)
            adapter = _TEMPLATE / model / "1" / _ADAPTER
            if adapter.exists():
                shutil.copy(adapter, self._directory / model / _ADAPTER)

    @property
    def graph(self) -> Path:
        """Where the ONNX graph is to be written."""
        return self._directory / GRAPH_MODEL / GRAPH_FILE

    def add_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write the tokenizer that is served."""
        tokenizer.save(str(self._directory / TOKENIZER_MODEL / TOKENIZER_FILE))

    def commit(self, release: Release) -> Release:
        """Hash the files, write the manifest, and move everything into place; return the release with its hashes."""
        hashes = {
            f"{path.parent.name}/{self._number}/{path.name}": sha256(path)
            for path in sorted(self._directory.glob("*/*"))
            if path.name != _ADAPTER  # code, not part of what was exported: it changes with the software
        }
        release = msgspec.structs.replace(release, files=hashes)
        for model in COMPOSING_MODELS:
            staged, target = self._directory / model, self._repository / model / str(self._number)
            (staged / MANIFEST).write_bytes(release.to_json())
            shutil.rmtree(target, ignore_errors=True)
            staged.rename(target)
        self.discard()
        (self._repository / ENSEMBLE / str(self._number)).mkdir(exist_ok=True)
        return release

    def discard(self) -> None:
        """Remove what was staged."""
        shutil.rmtree(self._directory, ignore_errors=True)


def next_number(repository: Path) -> int:
    """The smallest release number above all that the repository holds."""
    found = [int(path.parent.name) for path in repository.glob(f"{GRAPH_MODEL}/*/{MANIFEST}")]
    return max(found, default=0) + 1


def pinned(repository: Path) -> int:
    """The release that the ensemble serves; InvalidRelease where the repository has no ensemble."""
    path = repository / ENSEMBLE / "config.pbtxt"
    match = _PIN.search(path.read_text()) if path.is_file() else None
    if match is None:
        raise InvalidRelease(f"expected a model repository at '{repository}', got none; run `verdictree export`")
    return int(match.group(2))


def pin(repository: Path, number: int) -> None:
    """Let the ensemble and its steps serve release `number` from the next load on."""
    for model in (*COMPOSING_MODELS, ENSEMBLE):  # the ensemble last: it refers to the others
        path = repository / model / "config.pbtxt"
        text = _PIN.sub(rf"\g<1>{number}", path.read_text())
        temporary = path.with_suffix(".tmp")
        temporary.write_text(_SERVED.sub(rf"\g<1>{number}", text))
        temporary.replace(path)


_PIN = re.compile(r"(model_version: )(\d+)")
_SERVED = re.compile(r"(versions: \[ )\d+(?= \])")


def _copy_template(repository: Path) -> None:
    for config in _TEMPLATE.glob("*/config.pbtxt"):
        target = repository / config.parent.name / config.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(config, target)
