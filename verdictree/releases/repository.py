"""A model repository on disk: which releases it holds, which the server loads, and which one the ensemble is pinned to.

Every configuration is replaced in one step, and in such an order that at no moment, however a writer dies, the
ensemble refers to a release that its steps do not load.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from verdictree import wire
from verdictree.errors import InvalidRelease, NotWritable
from verdictree.releases import spare_files
from verdictree.releases.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST, MARGINALS_MODEL, TOKENIZER_MODEL

ENSEMBLE = wire.MODEL  # answers by the pinned release, or by the router while there are two
CANDIDATE, LIVE, ROUTER = "guard_candidate", "guard_live", "guard_router"
CONFIG, ADAPTER = "config.pbtxt", "model.py"
_TEMPLATE_CODE = (ADAPTER, ".gitkeep")  # what folder 1 of a checkout holds without a release
_STEP = re.compile(r'(model_name: "(\w+)"\s+model_version: )(\d+)')
_BATCH_SIZE = re.compile(r"^max_batch_size: *(\d+)", re.MULTILINE)
_UNBOUNDED = "dynamic_batching { }"
_BOUNDED = """dynamic_batching {
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 3750000
    allow_timeout_override: true
    max_queue_size: 64
  }
}"""
_QUEUE_TIMEOUT = re.compile(r"(default_timeout_microseconds: )\d+")
_QUEUED_SHARE = 0.75
_VERSIONS = re.compile(r"(versions: \[ )([\d, ]+)(?= \])")


def releases(repository: Path) -> tuple[int, ...]:
    """The numbers of the releases that the repository holds, in order."""
    found = (path.parent.name for path in repository.glob(f"{GRAPH_MODEL}/*/{MANIFEST}"))
    return tuple(sorted(int(name) for name in found if name.isdigit()))


def next_number(repository: Path) -> int:
    """The smallest release number above all that the repository holds."""
    return max(releases(repository), default=0) + 1


def pinned(repository: Path, ensemble: str = ENSEMBLE) -> int:
    """The release that the ensemble is pinned to; InvalidRelease where the repository has no such ensemble."""
    path = repository / ensemble / CONFIG
    match = _VERSIONS.search(path.read_text()) if path.is_file() else None
    if match is None:
        raise InvalidRelease(f"expected a model repository at '{repository}', got none; run `verdictree export`")
    return int(match.group(2))


def candidate(repository: Path) -> int | None:
    """The release that is staged beside the pinned one, if any."""
    return pinned(repository, CANDIDATE) if (repository / CANDIDATE / CONFIG).is_file() else None


class _Steps(msgspec.Struct):
    shares: int | None = None


def steps(repository: Path, number: int) -> dict[str, int]:
    """The version of each composing model that serves release `number`: its own, or those of the one it shares.

    A number that there is no release of has its own. InvalidRelease for a manifest that is damaged.
    """
    path = repository / MARGINALS_MODEL / str(number) / MANIFEST
    try:
        shares = msgspec.json.decode(path.read_bytes(), type=_Steps).shares
    except FileNotFoundError:
        shares = None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as exc:
        raise InvalidRelease(f"the release manifest '{path}' is damaged ({exc}); export the release again") from exc
    return {model: number if model == MARGINALS_MODEL or shares is None else shares for model in COMPOSING_MODELS}


def needed_by(repository: Path, number: int) -> tuple[int, ...]:
    """The other releases that are served by steps of release `number`."""
    others = (one for one in releases(repository) if one != number)
    return tuple(one for one in others if number in steps(repository, one).values())


def versions(repository: Path) -> tuple[int, ...]:
    """The releases that a server loads when it starts."""
    match = _VERSIONS.search((repository / MARGINALS_MODEL / CONFIG).read_text())
    return tuple(sorted(map(int, match.group(2).split(",")))) if match else ()


def set_versions(repository: Path, numbers: Iterable[int]) -> None:
    """Let the composing models load these releases, from the next load on."""
    for model, loaded in step_versions(repository, numbers).items():
        path = repository / model / CONFIG
        replace(path, config_with_versions(path.read_text(), loaded))


def step_versions(repository: Path, numbers: Iterable[int]) -> dict[str, set[int]]:
    """The versions that each composing model must load to serve these releases."""
    served = [steps(repository, number) for number in numbers]
    return {model: {one[model] for one in served} for model in COMPOSING_MODELS}


def config_with_versions(config: str, numbers: Iterable[int]) -> str:
    """A model's configuration that loads these versions."""
    return _VERSIONS.sub(rf"\g<1>{', '.join(map(str, sorted(set(numbers))))}", config)


def spread_batch_size(repository: Path) -> None:
    """Let all models take as many requests at once as `guard` does: a step that takes fewer would not load with it."""
    size = batch_size((repository / ENSEMBLE / CONFIG).read_text())
    for model in (*COMPOSING_MODELS, ROUTER):
        path = repository / model / CONFIG
        if size is not None and path.is_file():
            replace(path, config_with_batch_size(path.read_text(), size))


def bound_queues(repository: Path, deadline: float | None = None) -> None:
    """Let requests wait in queues of a bounded length only, which those of old repositories are not, and in each for
    three quarters of `deadline` seconds at most, which leaves time to compute (None: as long as is configured)."""
    for model in (TOKENIZER_MODEL, GRAPH_MODEL):
        path = repository / model / CONFIG
        config = path.read_text().replace(_UNBOUNDED, _BOUNDED)
        if deadline is not None:
            config = _QUEUE_TIMEOUT.sub(rf"\g<1>{round(_QUEUED_SHARE * deadline * 1e6)}", config)
        replace(path, config)


def batch_size(config: str) -> int | None:
    """A configuration's `max_batch_size`; None where it has none."""
    match = _BATCH_SIZE.search(config)
    return int(match.group(1)) if match else None


def config_with_batch_size(config: str, size: int) -> str:
    """A configuration with this `max_batch_size`."""
    return _BATCH_SIZE.sub(f"max_batch_size: {size}", config)


def pin(repository: Path, number: int) -> None:
    """Let the ensemble serve release `number` from its next load on; releases that are loaded stay loaded."""
    set_versions(repository, {*versions(repository), pinned(repository), number})
    path = repository / ENSEMBLE / CONFIG
    _make_folder(repository / ENSEMBLE / str(number))
    replace(path, _pinned_to(path.read_text(), repository, number))


def keep_only_pinned(repository: Path) -> None:
    """Forget every release but the pinned one, as a server that starts should; no release's files are touched.

    The ensemble's folder for it, which is empty, may have got lost on the way here: not every copy keeps such folders.
    """
    _make_folder(repository / ENSEMBLE / str(pinned(repository)))
    for ensemble in (CANDIDATE, LIVE):
        remove_ensemble(repository, ensemble)
    set_versions(repository, [pinned(repository)])


def write_ensemble(repository: Path, name: str, number: int) -> None:
    """A second ensemble like the first, of this name and pinned to release `number`."""
    config = _pinned_to((repository / ENSEMBLE / CONFIG).read_text(), repository, number)
    _make_folder(repository / name / str(number))
    replace(repository / name / CONFIG, config.replace(f'name: "{ENSEMBLE}"\n', f'name: "{name}"\n', 1))


def remove_ensemble(repository: Path, name: str) -> None:
    """Remove what `write_ensemble` wrote; nothing where it wrote nothing."""
    try:
        (repository / name / CONFIG).unlink(missing_ok=True)  # first: what is left of a folder must not count as staged
    except OSError as exc:
        raise NotWritable.of(repository / name / CONFIG, exc) from exc
    shutil.rmtree(repository / name, ignore_errors=True)


def delete_files(repository: Path, number: int) -> None:
    """Remove what was written as release `number`; files that other releases share by hard link stay theirs."""
    for model in (*COMPOSING_MODELS, ENSEMBLE):
        folder = repository / model / str(number)
        (folder / MANIFEST).unlink(missing_ok=True)  # first: half a release must not look like one
        for path in folder.glob("*"):
            if not (number == 1 and path.name in _TEMPLATE_CODE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def copy_template(template: Path, repository: Path) -> list[Path]:
    """Give the repository the configurations, and the router's adapter, that it lacks; return what was written."""
    models = (*COMPOSING_MODELS, ENSEMBLE, ROUTER)
    written = []
    for file in (*(template / model / CONFIG for model in models), template / ROUTER / "1" / ADAPTER):
        target = repository / file.relative_to(template)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            written.append(Path(shutil.copy(file, target)))
    return written


def _pinned_to(config: str, repository: Path, number: int) -> str:
    versions = steps(repository, number)
    config = _STEP.sub(lambda match: f"{match[1]}{versions.get(match[2], number)}", config)
    return _VERSIONS.sub(rf"\g<1>{number}", config)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc


def replace(path: Path, text: str) -> None:
    """Replace a file in one step that also outlives a power cut; one that is the same already stays as it is.

    Raises NotWritable where the disk takes nothing; inside `spare_files.taken`, a full one takes what is kept for that.
    """
    if path.is_file() and path.read_text() == text:
        return
    try:
        _write(path, text.encode())
        _sync(path.parent)
    except OSError as exc:
        raise NotWritable.of(path, exc) from exc


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        is_full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (is_full and spare_files.replace(path.parents[1], path, content)):
            raise


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
