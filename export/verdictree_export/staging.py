"""A release under construction, on its way into a model repository."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from verdictree.errors import InvalidRelease
from verdictree.release import (
    COMPOSING_MODELS,
    GRAPH_MODEL,
    MANIFEST,
    OUTLINE_FOLDER,
    TOKENIZER_FILE,
    TOKENIZER_MODEL,
    Release,
    sha256,
)
from verdictree.repository import CONFIG, ENSEMBLE, ROUTER, link_files

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
    def graph_folder(self) -> Path:
        """Where the ONNX graph is to be written, with its weights and its policies."""
        return self._directory / GRAPH_MODEL

    @property
    def outline_folder(self) -> Path:
        """Where the checkpoint's outline is to be written."""
        return self._directory / GRAPH_MODEL / OUTLINE_FOLDER

    def link(self, base: Release, names: Iterable[str]) -> None:
        """Take over files of another release of the repository by hard link."""
        try:
            link_files(self._repository, base, names, self._directory)
        except OSError as exc:
            raise InvalidRelease(
                f"expected a file system with hard links for '{self._directory}', got {exc}; export again"
            ) from exc

    def add_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Write the tokenizer that is served."""
        tokenizer.save(str(self._directory / TOKENIZER_MODEL / TOKENIZER_FILE))

    def commit(self, release: Release) -> Release:
        """Hash the files, write the manifest, and move everything into place; return the release with its hashes."""
        parts = {path: path.relative_to(self._directory).parts for path in sorted(self._directory.rglob("*"))}
        hashes = {
            "/".join((model, str(self._number), *rest)): sha256(path)
            for path, (model, *rest) in parts.items()
            if path.is_file() and path.name != _ADAPTER  # code, not exported: it changes with the software
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


def _copy_template(repository: Path) -> None:
    models = (*COMPOSING_MODELS, ENSEMBLE, ROUTER)
    for file in (*(_TEMPLATE / model / CONFIG for model in models), _TEMPLATE / ROUTER / "1" / _ADAPTER):
        target = repository / file.relative_to(_TEMPLATE)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
