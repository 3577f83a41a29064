"""`verdictree evaluate`, from its options to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verdictree.releases.calibration import Calibration
from verdictree_evaluation.data.arrays import Scored
from verdictree_evaluation.data.datasets import Dataset
from verdictree_evaluation.errors import BadData
from verdictree_evaluation.metrics import evaluate
from verdictree_evaluation.reports import outputs
from verdictree_evaluation.scoring import InProcess, Served
from verdictree_evaluation.session import Session


def evaluate_data(
    session: Session, data: Sequence[Path], tune_data: Sequence[Path], out: Path
) -> tuple[outputs.Run, Path]:
    """Evaluate, write the folder, and return what was done and the report's path."""
    guard = session.guard()
    dataset = session.load(data, guard.codes)
    tune_set = session.load(tune_data, guard.codes) if tune_data else None
    _check_apart(dataset, tune_set)
    scored, refused = session.score(guard, dataset, out / outputs.PREDICTIONS)
    problems = [*dataset.problems, *refused]
    tune = None
    if tune_set:
        tune, tune_refused = session.score(guard, tune_set, out / outputs.TUNE_PREDICTIONS, "scoring --tune")
        problems += [*tune_set.problems, *tune_refused]
    policy, calibration = (guard.policy, guard.calibration) if isinstance(guard, InProcess) else (None, None)
    seed = session.options["seed"]
    scored, tune, calibrated_by = evaluate.calibrated(scored, tune, policy, calibration, seed)
    run = outputs.Run(
        guard=_describe(guard),
        names=dict(zip(guard.codes, guard.names, strict=True)),
        scored=scored,
        tune=tune,
        tuned_on="on the rows of --tune" if tune else "by cross-fitting (on the other four of five folds)",
        calibrated_by=calibrated_by,
        calibration=calibration,
        problems=problems,
        warnings=_warnings(scored, dataset, calibration),
        files=dataset.files,
        num_resamples=session.options["resamples"],
        seed=seed,
        redact=session.options["redact"],
    )
    measured = outputs.measure(run, lambda steps: session.begin("resampling", steps, 0))
    return run, outputs.write(run, measured, out)


def _describe(guard: InProcess | Served) -> str:
    if isinstance(guard, Served):
        return guard.release
    release = guard.guard.release
    adapter = " with its LoRA adapter" if release.adapter else ""
    return f"release {release.number}: {release.checkpoint}{adapter}, {release.precision}, policy {guard.policy.name}"


def _check_apart(dataset: Dataset, tune: Dataset | None) -> None:
    shared = {row.digest for row in dataset.rows} & {row.digest for row in tune.rows} if tune else set()
    if shared:
        row = next(row for row in dataset.rows if row.digest in shared)
        raise BadData(
            f"expected no conversation both in DATA and in --tune, got {len(shared)}, the first at {row.place}; "
            "thresholds chosen on the judged rows flatter the guard"
        )


def _warnings(scored: Scored, dataset: Dataset, calibration: Calibration | None) -> list[str]:
    found = []
    if calibration and set(calibration.data.values()) & set(dataset.files.values()):
        found.append("The release was calibrated on these very rows: calibrated figures and flags are flattering.")
    if not scored.known.all():
        share = 1 - scored.known.mean()
        found.append(f"{share:.0%} of all (row, category) entries are unlabelled; see “How to read this”.")
    if scored.unsafe.all() or not scored.unsafe.any():
        found.append("All rows are safe or all unsafe: false positives, recall and ranking cannot be measured on them.")
    return found
