"""What makes up a release on disk: its fingerprint, a release derived from it, its removal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from verdictree.policy import UNSAFE
from verdictree.releases import calibration as calibrations
from verdictree.releases import repository as repositories
from verdictree.releases import writer as release_writer
from verdictree.releases.calibration import CALIBRATION, Calibration, Calibrator, Outcome
from verdictree.releases.journal import Journal
from verdictree.releases.release import GRAPH_MODEL, MANIFEST, MARGINALS_MODEL, Release, sha256
from verdictree_client.rollout.errors import Refused

_BY_HAND = "set by hand"
_PATIENCE = 60.0  # seconds to wait for another operator's action


def fingerprint(repository: Path, number: int) -> str:
    """The SHA-256 of a release's manifest, which holds its files' hashes, and of its calibration."""
    folder = repository / MARGINALS_MODEL / str(number)
    digest = hashlib.sha256()
    for path in (folder / MANIFEST, folder / CALIBRATION):
        digest.update(path.read_bytes() if path.is_file() else b"none")
    return digest.hexdigest()


def derive(
    repository: Path,
    source: int,
    calibration: Path | None,
    thresholds: Mapping[str | None, float],
    *,
    journal: Journal | None = None,
    reason: str = "",
) -> Release:
    """Write the next release from release `source`: another calibration, served by the same tokenizer and graph.

    `calibration` is a calibration file that was fitted for `source` (None: the one of `source`, if any); `thresholds`
    replace the default policy's thresholds by code, "unsafe" for P(unsafe), None for all that are not named.
    Raises InvalidRelease for a source or file that is damaged, Refused for a code that there is none of, and for
    a release whose early exit rests on its thresholds.
    """
    base = Release.load_verified(repository, source)
    folder = repository / MARGINALS_MODEL / str(source)
    if base.early_exit is not None and base.early_exit.rules:
        raise Refused(
            f"expected a release without an early exit, got {source}: what its exit misses was proven at its own "
            "thresholds; prove it at others with `verdictree early-exit fit --calibration`"
        )
    fitted = calibrations.load(folder, base) if calibration is None else calibrations.read(calibration)
    for made in fitted.values():
        if made.manifest_sha256 != sha256(folder / MANIFEST):
            raise Refused(f"expected a calibration fitted for release {source}, got one for release {made.release}")
    if thresholds:
        name = base.policy.name
        fitted = {**fitted, name: _with_thresholds(fitted.get(name) or _uncalibrated(base), thresholds)}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with release_writer.new(repository, "derive", journal=journal, patience=_PATIENCE) as draft:
        release = msgspec.structs.replace(base, created=created, shares=base.version(GRAPH_MODEL))
        changes = {"version": f"{draft.number}.1", "created": created}
        own = {name: msgspec.structs.replace(calibration, **changes) for name, calibration in fitted.items()}
        return draft.commit(release, own, reason=reason, details={"source": source})


def delete(repository: Path, number: int) -> None:
    """Remove what was exported as release `number`; files that other releases share by hard link stay theirs.

    Raises Refused where another release is served by its graph.
    """
    users = repositories.needed_by(repository, number)
    if users:
        named = ", ".join(map(str, users))
        raise Refused(f"expected a release that nothing needs, but release {named} shares its graph")
    repositories.delete_files(repository, number)


def _with_thresholds(fitted: Calibration, thresholds: Mapping[str | None, float]) -> Calibration:
    outcomes = (fitted.unsafe, *fitted.categories)
    known = [outcome.code for outcome in outcomes]
    unknown = [code for code in thresholds if code is not None and code not in known]
    if unknown:
        raise Refused(f"expected codes among {', '.join(known)}, got {', '.join(map(str, unknown))}")
    unset = [outcome.code for outcome in outcomes if outcome.rule == "none" and outcome.code not in thresholds]
    if unset and None not in thresholds:
        raise Refused(f"expected a threshold for {', '.join(unset)} too, the release has none; give --threshold 0.2")
    unsafe, *categories = (
        msgspec.structs.replace(outcome, threshold=value, rule=_BY_HAND)
        if (value := thresholds.get(outcome.code, thresholds.get(None))) is not None
        else outcome
        for outcome in outcomes
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
        unsafe=raw(UNSAFE),
        categories=tuple(map(raw, release.policy.codes)),
    )
