"""What makes up a release on disk: its fingerprint, a release derived from it, its removal."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from verdictree import calibration as calibrations
from verdictree import release as releases
from verdictree.calibration import CALIBRATION, Calibration, Calibrator, Outcome
from verdictree.release import COMPOSING_MODELS, MANIFEST, MARGINALS_MODEL, Release, sha256
from verdictree.repository import ENSEMBLE, link_files, next_number
from verdictree_client.rollout.errors import Refused

_BY_HAND = "set by hand"
_CODE = ("model.py", ".gitkeep")


def fingerprint(repository: Path, number: int) -> str:
    """The SHA-256 of a release's manifest, which holds its files' hashes, and of its calibration."""
    folder = repository / MARGINALS_MODEL / str(number)
    digest = hashlib.sha256()
    for path in (folder / MANIFEST, folder / CALIBRATION):
        digest.update(path.read_bytes() if path.is_file() else b"none")
    return digest.hexdigest()


def derive(repository: Path, source: int, calibration: Path | None, thresholds: Mapping[str | None, float]) -> Release:
    """Write the next release from release `source`: the same files by hard link, another calibration.

    `calibration` is a calibration file that was fitted for `source` (None: the one of `source`, if any); `thresholds`
    replace the default policy's thresholds by code, "unsafe" for P(unsafe), None for all that are not named.
    Raises InvalidRelease for a source or file that is damaged, Refused for a code that there is none of or a file
    system without hard links.
    """
    base = releases.load_verified(repository, source)
    folder = repository / MARGINALS_MODEL / str(source)
    fitted = calibrations.load(folder, base) if calibration is None else calibrations.read(calibration)
    for one in fitted.values():
        if one.manifest_sha256 != sha256(folder / MANIFEST):
            raise Refused(f"expected a calibration fitted for release {source}, got one for release {one.release}")
    if thresholds:
        name = base.policy.name
        fitted = {**fitted, name: _with_thresholds(fitted.get(name) or _uncalibrated(base), thresholds)}
    return _write(repository, base, fitted)


def delete(repository: Path, number: int) -> None:
    """Remove what was exported as release `number`; files that other releases share by hard link stay theirs."""
    for model in (*COMPOSING_MODELS, ENSEMBLE):
        folder = repository / model / str(number)
        (folder / MANIFEST).unlink(missing_ok=True)  # first: half a release must not look like one
        for path in folder.glob("*"):
            # Folder 1 also holds the adapters' code that every export copies.
            if not (number == 1 and path.name in _CODE):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _with_thresholds(fitted: Calibration, thresholds: Mapping[str | None, float]) -> Calibration:
    outcomes = (fitted.unsafe, *fitted.categories)
    known = [outcome.code for outcome in outcomes]
    unknown = [code for code in thresholds if code is not None and code not in known]
    if unknown:
        raise Refused(f"expected codes among {', '.join(known)}, got {', '.join(map(str, unknown))}")
    unset = [one.code for one in outcomes if one.rule == "none" and one.code not in thresholds]
    if unset and None not in thresholds:
        raise Refused(f"expected a threshold for {', '.join(unset)} too, the release has none; give --threshold 0.2")
    unsafe, *categories = (
        msgspec.structs.replace(one, threshold=value, rule=_BY_HAND)
        if (value := thresholds.get(one.code, thresholds.get(None))) is not None
        else one
        for one in outcomes
    )
    return msgspec.structs.replace(fitted, unsafe=unsafe, categories=tuple(categories))


def _uncalibrated(release: Release) -> Calibration:
    def raw(code: str) -> Outcome:
        return Outcome(code, Calibrator(), threshold=1.0, rule="none", num_positives=0, num_negatives=0)

    return Calibration(
        version="",
        created="",
        release=release.number,
        policy=release.policy.name,
        manifest_sha256="",
        guard_sha256=release.guard_sha256,
        data={},
        unlabelled="masked",
        unsafe=raw("unsafe"),
        categories=tuple(map(raw, release.policy.codes)),
    )


def _write(repository: Path, base: Release, fitted: Mapping[str, Calibration]) -> Release:
    number, created = next_number(repository), datetime.now(UTC).isoformat(timespec="seconds")
    moved = {name: name.replace(f"/{base.number}/", f"/{number}/", 1) for name in base.files}
    release = msgspec.structs.replace(
        base, number=number, created=created, files={moved[name]: digest for name, digest in base.files.items()}
    )
    staging = repository / f".release-{number}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for model in COMPOSING_MODELS:
            (staging / model).mkdir(parents=True)
            adapter = repository / model / str(base.number) / "model.py"
            if adapter.is_file():
                shutil.copy(adapter, staging / model / adapter.name)
            (staging / model / MANIFEST).write_bytes(release.to_json())
        _link(repository, base, staging)
        if fitted:
            manifest = sha256(staging / MARGINALS_MODEL / MANIFEST)
            changes = {"version": f"{number}.1", "created": created, "release": number, "manifest_sha256": manifest}
            rebound = {name: msgspec.structs.replace(one, **changes) for name, one in fitted.items()}
            calibrations.save(rebound, staging / MARGINALS_MODEL)
        for model in COMPOSING_MODELS:
            (staging / model).rename(repository / model / str(number))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    (repository / ENSEMBLE / str(number)).mkdir(exist_ok=True)
    return release


def _link(repository: Path, base: Release, folder: Path) -> None:
    try:
        link_files(repository, base, base.files, folder)
    except OSError as exc:
        raise Refused(f"expected a file system with hard links for '{folder}', got {exc}; export again") from exc
