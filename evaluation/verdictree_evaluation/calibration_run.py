"""`verdictree calibrate`, from its options to a file that `verdictree rollout derive` makes a release of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from verdictree.policy import UNSAFE, Policy
from verdictree.releases import calibration as calibrations
from verdictree.releases.calibration import Calibration
from verdictree.releases.decision import Decision
from verdictree.releases.release import MANIFEST, sha256
from verdictree.text.visible import visible
from verdictree_evaluation.data.datasets import Problem
from verdictree_evaluation.errors import EvaluationError
from verdictree_evaluation.metrics import calibrate
from verdictree_evaluation.metrics.thresholds import MAX_F1, Rule, parse_rule
from verdictree_evaluation.reports import outputs
from verdictree_evaluation.scoring import InProcess
from verdictree_evaluation.session import Session

REPORT = "calibration-report.json"


@dataclass(frozen=True)
class Summary:
    """What `calibrate` fitted, where it lies, and what it left out."""

    calibration: Calibration
    losses: dict[str, dict[str, float]]
    repository: Path
    path: Path
    problems: Sequence[Problem]
    warnings: Sequence[str]

    @property
    def derive(self) -> str:
        """The command that makes a release with this calibration."""
        repository, path = shlex.quote(str(self.repository)), shlex.quote(str(self.path))
        return f"verdictree rollout derive {self.calibration.release} --repository {repository} --calibration {path}"

    def table(self) -> Table:
        """The outcomes as a person reads them in a terminal."""
        table = Table(title="calibrators by cross-validated log loss", title_justify="left")
        for name in ("score", "calibrator", "log loss: raw → chosen", "threshold", "rule", "positives"):
            table.add_column(name)
        for outcome in (self.calibration.unsafe, *self.calibration.categories):
            losses = self.losses[outcome.code]
            change = f"{losses['none']:.4f} → {losses[outcome.calibrator.method]:.4f}" if losses else "–"
            cells = (
                visible(outcome.code),
                outcome.calibrator.method,
                change,
                f"{outcome.threshold:.3f}",
                visible(outcome.rule),
            )
            table.add_row(*cells, f"{outcome.num_positives} of {outcome.num_positives + outcome.num_negatives}")
        return table


def calibrate_data(session: Session, data: Sequence[Path], out: Path) -> Summary:
    """Fit a release's calibration and write it into the folder `out`; the release stays as it is.

    Raises EvaluationError for a threshold that would rest on too few positives.
    """
    guard = session.guard(exact=True)  # where a conversation leaves early, there are no scores to fit to
    if not isinstance(guard, InProcess):
        raise EvaluationError("expected a release of a model repository, got a server; give --repository")
    plan = _plan(session, guard.policy)
    dataset = session.load(data, guard.codes)
    scored, refused = session.score(guard, dataset, out / outputs.PREDICTIONS)
    fitted = calibrate.fit(scored, plan)
    calibrate.check_positives(fitted, plan)
    release = guard.guard.release
    artifact = calibrate.artifact(
        fitted,
        plan,
        version=calibrate.next_version(release.number, guard.calibration),
        release=release,
        policy=guard.policy.name,
        manifest_sha256=sha256(guard.directory / MANIFEST),
        data=dataset.files,
    )
    path = calibrations.save({**guard.guard.calibrations, guard.policy.name: artifact}, out)
    losses = {code: {str(method): loss for method, loss in methods.items()} for code, methods in fitted.losses.items()}
    content = {"version": artifact.version, "data": dataset.files, "log_losses": losses}
    (out / REPORT).write_text(json.dumps(content, indent=1) + "\n")
    notes = [f"{outcome.code}: {outcome.note}" for outcome in (fitted.unsafe, *fitted.categories) if outcome.note]
    notes += [
        f"{code}: its threshold is not above the policy's review, so nothing of it will be reviewed"
        for code in Decision(guard.policy, artifact).empty_bands
    ]
    return Summary(artifact, losses, session.options["repository"], path, [*dataset.problems, *refused], notes)


def _plan(session: Session, policy: Policy) -> calibrate.Plan:
    rules = dict(parse_rule(text) for text in session.options["rules"])
    # What the policy sets is what is served: no threshold is learned in its place.
    thresholds = {UNSAFE: policy.threshold, **{one.code: one.threshold for one in policy.categories}}
    own = {code: Rule("fixed", threshold) for code, threshold in thresholds.items() if threshold is not None}
    return calibrate.Plan(
        rule=rules.pop(None, MAX_F1),
        rules={**{code: rule for code, rule in rules.items() if code}, **own},
        raw=calibrate.left_raw(policy),
        min_positives=session.options["min_positives"],
        unlabelled=session.options["unlabelled"],
        seed=session.options["seed"],
    )
