"""A model repository on disk: which releases it holds, which the server loads, and which one the ensemble is pinned to.

Every configuration is replaced in one step, and in such an order that at no moment, however a writer dies, the
ensemble refers to a release that its steps do not load.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from verdictree import wire
from verdictree.errors import InvalidRelease, NotWritable
from verdictree.files.atomic_file import replace
from verdictree.releases import model_config
from verdictree.releases.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST, MARGINALS_MODEL, TOKENIZER_MODEL

ENSEMBLE = wire.MODEL  # answers by the pinned release, or by the router while there are two
CANDIDATE, LIVE, ROUTER = "guard_candidate", "guard_live", "guard_router"
CONFIG, ADAPTER = "config.pbtxt", "model.py"
_TEMPLATE_CODE = (ADAPTER, ".gitkeep")  # what folder 1 of a checkout holds without a release


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
    numbers = model_config.versions(path.read_text()) if path.is_file() else ()
    if not numbers:
        raise InvalidRelease(f"expected a model repository at '{repository}', got none; run `verdictree export`")
    return numbers[0]


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
    others = (other for other in releases(repository) if other != number)
    return tuple(one for one in others if number in steps(repository, one).values())


def versions(repository: Path) -> tuple[int, ...]:
    """The releases that a server loads when it starts."""
    return model_config.versions((repository / MARGINALS_MODEL / CONFIG).read_text())


def set_versions(repository: Path, numbers: Iterable[int]) -> None:
    """Let the composing models load these releases, from the next load on."""
    for model, loaded in step_versions(repository, numbers).items():
        path = repository / model / CONFIG
        replace(path, model_config.with_versions(path.read_text(), loaded))


def step_versions(repository: Path, numbers: Iterable[int]) -> dict[str, set[int]]:
    """The versions that each composing model must load to serve these releases."""
    served = [steps(repository, number) for number in numbers]
    return {model: {versions[model] for versions in served} for model in COMPOSING_MODELS}


def spread_batch_size(repository: Path) -> None:
    """Let all models take as many requests at once as `guard` does: a step that takes fewer would not load with it."""
    size = model_config.batch_size((repository / ENSEMBLE / CONFIG).read_text())
    for model in (*COMPOSING_MODELS, ROUTER):
        path = repository / model / CONFIG
        if size is not None and path.is_file():
            replace(path, model_config.with_batch_size(path.read_text(), size))


def bound_queues(repository: Path, deadline: float | None = None) -> None:
    """Bound the lines in which requests wait for a step, as `model_config.with_own_queue` says."""
    for model in COMPOSING_MODELS:
        path = repository / model / CONFIG
        of_callers = None if model == MARGINALS_MODEL else deadline
        replace(path, model_config.with_own_queue(path.read_text(), of_callers))


def make_room_for_windows(repository: Path) -> None:
    """Let the steps tell each other the places of windows, which the configurations of old repositories do not."""
    for model in (TOKENIZER_MODEL, MARGINALS_MODEL):
        path = repository / model / CONFIG
        config = path.read_text()
        if (roomy := model_config.with_windows(config)) != config:
            replace(path, roomy)


def pin(repository: Path, number: int) -> None:
    """Let the ensemble serve release `number` from its next load on; releases that are loaded stay loaded."""
    set_versions(repository, {*versions(repository), pinned(repository), number})
    path = repository / ENSEMBLE / CONFIG
    _make_folder(repository / ENSEMBLE / str(number))
    replace(path, model_config.pinned_to(path.read_text(), number, steps(repository, number)))


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
    config = model_config.pinned_to((repository / ENSEMBLE / CONFIG).read_text(), number, steps(repository, number))
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc
