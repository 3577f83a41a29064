"""`verdictree early-exit`: let plainly safe conversations leave the guard after a part of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from verdictree_cli.shared_options import confidence_option, max_missed_option, repository_option

if TYPE_CHECKING:
    from verdictree.releases.early_exit import EarlyExit


@click.group("early-exit")
def early_exit() -> None:
    """Look after a release's early exit."""


@early_exit.command()
@click.argument("source", type=click.IntRange(min=1), metavar="RELEASE")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@repository_option
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A calibration.json that was fitted for RELEASE; default: its own.",
)
@max_missed_option
@confidence_option
def fit(
    source: int,
    files: tuple[Path, ...],
    repository: Path,
    calibration: Path | None,
    max_missed: float,
    confidence: float,
) -> None:
    """Write a new release: RELEASE, with an early exit that is fitted to the conversations in FILES.

    The conversations (JSON lines, labelled or not) must be like those to be served. Half of them teach the probe, the
    other half prove how many it misses. RELEASE must have been exported with --early-exit; the weights are shared.
    """
    from verdictree.conversation_file import read
    from verdictree_cli.export import progress_bars
    from verdictree_cli.terminal import say
    from verdictree_export.early_exit.new_release import fit_release

    shown = [conversation for path in files for conversation in read(path)]
    with progress_bars() as progress:
        release, found = fit_release(
            repository,
            source,
            shown,
            calibration=calibration,
            max_missed=max_missed,
            confidence=confidence,
            advance=progress("ask the guard in full", len(shown)),
        )
    say(f"release {release.number}: the guard of release {source}")
    say_rules(found.early_exit)
    for (policy, role), why in found.without_rule.items():
        say(f"policy {policy}, {role}: nobody leaves early: {why}")


def say_rules(early_exit: EarlyExit) -> None:
    """Print what is proven of each rule."""
    from verdictree_cli.terminal import say

    for rule in early_exit.rules:
        proof = rule.proof
        say(
            f"policy {rule.policy}, {rule.role}: {proof.num_left} of {proof.num_conversations} conversations leave "
            f"after layer {early_exit.layer}, {proof.num_missed} of {proof.num_alerts} alerts among them; with "
            f"{proof.confidence:.0%} confidence at most {proof.max_missed:.2%} of alerts, and "
            f"{proof.missed_of_all:.2%} of such traffic, leave unseen"
        )
