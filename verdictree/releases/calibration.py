"""Calibration: what a release's scores mean on labelled data, and from which score on a category is flagged.

The artifact is one file, `calibration.json`, beside the manifest in `guard_marginals/<N>/`: a calibration for each
policy that was calibrated. It is made after the export, so the manifest cannot list its hash: the file carries the
SHA-256 of its own content instead, and that of the manifest that it was fitted for. One file is replaced in one step;
two could come apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.errors import InvalidRelease
from verdictree.releases.release import MANIFEST, Release, sha256
from verdictree.releases.score_counts import ScoreCounts

CALIBRATION = "calibration.json"
# 1 is that of files from before there was a number; 2 has the rows' scores, as counts.
FORMAT = 2
EPSILON = 1e-4
RANKING_SHARE = 1e-3
_FIX = "run `verdictree calibrate` again, or remove the file to serve raw scores"

Array = npt.NDArray[np.float64]
Method = Literal["none", "temperature", "platt", "isotonic"]


def log_odds(p: npt.ArrayLike) -> Array:
    """z(p) = log((p + ε) / (1 − p + ε)), ε = 1e-4: strictly increasing, finite at 0 and 1. Any shape."""
    values = np.asarray(p, dtype=np.float64)
    return np.asarray(np.log(values + EPSILON) - np.log(1.0 - values + EPSILON))


class Calibrator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A strictly increasing map of [0, 1] into itself, so that no ranking changes.

    none         p
    temperature  σ(slope · z(p)), slope = 1 / T > 0         (Guo et al. 2017)
    platt        σ(slope · z(p) + intercept), slope > 0     (Platt 1999)
    isotonic     (1 − s) · f(p) + s · p, s = 1e-3, f linear between the knots (x, y) and constant outside; the share
                 s of p keeps apart what f's steps would tie (Zadrozny and Elkan 2002)
    """

    method: Method = "none"
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __call__(self, p: npt.ArrayLike) -> Array:
        """Calibrated probabilities, same shape as `p`."""
        values = np.asarray(p, dtype=np.float64)
        if self.method == "none":
            return values
        if self.method == "isotonic":
            steps = np.interp(values, self.x, self.y)
            return np.asarray((1.0 - RANKING_SHARE) * steps + RANKING_SHARE * values)
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * log_odds(values) + self.intercept))))

    def fault(self) -> str | None:
        """Why this is no calibrator (not finite, not increasing, knots that do not pair), or None."""
        numbers = np.array([self.slope, self.intercept, *self.x, *self.y])
        if not np.isfinite(numbers).all():
            return "a parameter is not finite"
        if self.method in ("temperature", "platt") and self.slope <= 0:
            return f"slope {self.slope} is not positive"
        if self.method == "temperature" and self.intercept != 0:
            return "temperature has no intercept"
        if self.method == "isotonic":
            inside = bool(self.y) and min(self.y) >= 0 and max(self.y) <= 1
            if not inside or len(self.x) != len(self.y) or min(np.diff(self.x), default=1.0) <= 0:
                return "the knots are not pairs of increasing x and y in [0, 1]"
            if min(np.diff(self.y), default=0.0) < 0:
                return "the knots fall"
        return None


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One score's calibrator, the calibrated score from which on it is flagged, and what both rest on.

    `rule` is how the threshold was chosen; `note` says what could not be done, or is empty. `scores` are those of its
    rows, calibrated, as counts; None in a calibration of format 1.
    """

    code: str
    calibrator: Calibrator
    threshold: float
    rule: str
    num_positives: int
    num_negatives: int
    note: str = ""
    scores: ScoreCounts | None = None


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The calibration of one policy of a release: under another policy the same score means something else.

    `manifest_sha256` names the release, `guard_sha256` its guard (see `Release`); `data` maps the files that it was
    fitted on to their SHA-256; `unlabelled` says how a category counted that a row says nothing of; `categories` are in
    the policy's order.
    """

    version: str
    created: str
    release: int
    policy: str
    manifest_sha256: str
    guard_sha256: str
    data: dict[str, str]
    unlabelled: Literal["masked", "negative"]
    unsafe: Outcome
    categories: tuple[Outcome, ...]


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    calibrations: msgspec.Raw
    format: int = 1


class _Header(msgspec.Struct):
    format: int = 1


def save(calibrations: Mapping[str, Calibration], directory: Path) -> Path:
    """Write the artifact, a calibration by policy, into a release's directory of `guard_marginals`; return its path.

    In one step, in place of what was there.
    """
    content = msgspec.json.encode(calibrations)
    sealed = _Sealed(hashlib.sha256(content).hexdigest(), msgspec.Raw(content), FORMAT)
    path = directory / CALIBRATION
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(sealed) + b"\n")
    temporary.replace(path)
    return path


def read_for(path: Path, release: Release) -> dict[str, Calibration]:
    """Read a calibration file that was fitted on an export of the very guard of `release`.

    InvalidRelease for a damaged file, for that of another guard, and for a policy that the release does not have.
    """
    found = read(path)
    for name, calibration in found.items():
        if calibration.guard_sha256 != release.guard_sha256:
            raise InvalidRelease(
                f"the calibration '{path}' was made for another guard (expected {release.guard_sha256[:12]}…, got "
                f"{calibration.guard_sha256[:12]}…: another checkpoint, adapter, policy, precision or exploration); "
                "run `verdictree calibrate` on this release"
            )
        _check_policy(calibration, name, release, path)
    return found


def rebind(calibrations: Mapping[str, Calibration], release: Release, directory: Path) -> None:
    """Put calibrations of the same guard into a release's `directory` of `guard_marginals`, as the release's own."""
    if calibrations:
        guard, manifest = release.guard_sha256, sha256(directory / MANIFEST)
        changes = {"release": release.number, "manifest_sha256": manifest, "guard_sha256": guard}
        save(
            {name: msgspec.structs.replace(calibration, **changes) for name, calibration in calibrations.items()},
            directory,
        )


def read(path: Path) -> dict[str, Calibration]:
    """Read a calibration file, whatever release it is for: a calibration by policy.

    InvalidRelease where it is missing or damaged, or of a later format than FORMAT.
    """
    try:
        content = path.read_bytes()
        if (later := msgspec.json.decode(content, type=_Header).format) > FORMAT:
            raise InvalidRelease(
                f"the calibration '{path}' is of format {later}, this version of verdictree reads formats up to "
                f"{FORMAT}; install the version that made it, or a later one"
            )
        sealed = msgspec.json.decode(content, type=_Sealed)
        found = msgspec.json.decode(sealed.calibrations, type=dict[str, Calibration])
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
        raise InvalidRelease(f"the calibration '{path}' is damaged ({exc}); {_FIX}") from exc
    if hashlib.sha256(bytes(sealed.calibrations)).hexdigest() != sealed.sha256:
        raise InvalidRelease(f"the calibration '{path}' is damaged (its content does not match its SHA-256); {_FIX}")
    return found


def load(directory: Path, release: Release) -> dict[str, Calibration]:
    """Read the artifact in a release's directory of `guard_marginals`: a calibration by policy, none without a file.

    Raises InvalidRelease for a file that is damaged or was made for another release: it is never left out silently.
    """
    path = directory / CALIBRATION
    if not path.exists():
        return {}
    found = read(path)
    manifest = sha256(directory / MANIFEST)
    for policy, calibration in found.items():
        _check(calibration, policy, release, manifest, path)
    return found


def _check(calibration: Calibration, name: str, release: Release, manifest: str, path: Path) -> None:
    if calibration.release != release.number or calibration.manifest_sha256 != manifest:
        raise InvalidRelease(
            f"the calibration '{path}' was made for another release (expected release {release.number}, manifest "
            f"{manifest[:12]}…, got release {calibration.release}, {calibration.manifest_sha256[:12]}…); {_FIX}"
        )
    _check_policy(calibration, name, release, path)


def _check_policy(calibration: Calibration, name: str, release: Release, path: Path) -> None:
    policy = next((policy for policy in release.policies if policy.name == name == calibration.policy), None)
    codes = tuple(outcome.code for outcome in calibration.categories)
    if policy is None or codes != policy.codes:
        raise InvalidRelease(
            f"the calibration '{path}' expected the categories of a policy of release {release.number}, "
            f"got {codes} for policy {calibration.policy!r}; {_FIX}"
        )
    for outcome in (calibration.unsafe, *calibration.categories):
        fault = outcome.calibrator.fault()
        if fault:
            raise InvalidRelease(f"the calibration '{path}' has no calibrator for {outcome.code!r}: {fault}; {_FIX}")
        counts = outcome.scores
        if counts is not None and (fault := counts.fault(outcome.num_positives, outcome.num_negatives)):
            raise InvalidRelease(f"the calibration '{path}' has no scores for {outcome.code!r}: {fault}; {_FIX}")
