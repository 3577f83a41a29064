"""`verdictree export`: a checkpoint becomes a release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from verdictree.releases.release import MAX_OFF_GRAMMAR
from verdictree.verdict_tree.exploration import Exploration
from verdictree_cli.shared_options import (
    confidence_option,
    family_option,
    max_missed_option,
    policies_option,
    repository_option,
)
from verdictree_export.defaults import FAMILY, MAX_TOKENS, PRECISION
from verdictree_export.tolerances import PRECISIONS

_EXPLORATION = Exploration()


@click.command()
@click.argument("checkpoint")
@family_option
@policies_option
@repository_option
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    help='A LoRA adapter\'s folder, merged before export; default for "embedded": its own.',
)
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A calibration.json that was fitted on another export of this very guard; default for "embedded" with its own '
    "policy and settings: its own.",
)
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default=PRECISION,
    show_default=True,
    help="Of the graph.",
)
@click.option(
    "--evaluation",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Conversations, labelled or not (JSON lines), that another precision than fp32 is judged by, and int8 fitted "
    "to; repeatable.",
)
@click.option(
    "--max-change",
    type=click.FloatRange(0, 1),
    help="Most that the precision may change P(unsafe), at the 99th percentile.  "
    f"[default: {', '.join(f'{name} {one.max_change}' for name, one in PRECISIONS.items() if one.is_converted)}]",
)
@click.option(
    "--max-off-grammar",
    type=click.FloatRange(0, 1),
    default=MAX_OFF_GRAMMAR,
    show_default=True,
    help="An answer with more probability off the grammar is undecided; 1 exports a guard that never gives a verdict.",
)
@click.option(
    "--early-exit",
    "exit_conversations",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Let plainly safe conversations leave the guard early: conversations like those to be served, labelled or not "
    "(JSON lines), by which that is fitted and proven; repeatable.",
)
@click.option(
    "--exit-layer",
    type=click.IntRange(min=1),
    help="After how many layers.  [default: where it saves most, by cross-validation]",
)
@max_missed_option
@confidence_option
@click.option("--release", "number", type=click.IntRange(min=1), help="The release's number; default: the next free.")
@click.option(
    "--max-labels",
    type=click.IntRange(1, 8),
    default=_EXPLORATION.max_labels,
    show_default=True,
    help="Labels followed.",
)
@click.option(
    "--epsilon",
    type=click.FloatRange(0, 1),
    default=_EXPLORATION.pruning_threshold,
    show_default=True,
    help="Least path probability followed.",
)
@click.option(
    "--width",
    type=click.IntRange(1, 256),
    default=_EXPLORATION.beam_width,
    show_default=True,
    help="Most paths followed a length.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=MAX_TOKENS, show_default=True, help="Longest conversation."
)
def export(
    checkpoint: str,
    family_name: str,
    policies: tuple[Path, ...],
    repository: Path,
    adapter: Path | None,
    calibration: Path | None,
    precision: str,
    evaluation: tuple[Path, ...],
    max_change: float | None,
    max_off_grammar: float,
    exit_conversations: tuple[Path, ...],
    exit_layer: int | None,
    max_missed: float,
    confidence: float,
    number: int | None,
    max_labels: int,
    epsilon: float,
    width: int,
    max_tokens: int,
) -> None:
    """Export CHECKPOINT (a folder, hub id, GGUF file, or "embedded") as a release of the model repository."""
    from verdictree import families
    from verdictree.policy import Policy, check_distinct

    taxonomies = [Policy.read(path) for path in policies]
    check_distinct(tuple(taxonomies))
    if family_name != FAMILY:
        families.family(family_name)  # a wrong name is told before anything large is imported
    from verdictree.conversation_file import read, read_labelled
    from verdictree.releases.repository import pinned
    from verdictree_cli.early_exit import say_rules
    from verdictree_cli.terminal import say
    from verdictree_export import embedded_guard
    from verdictree_export.checkpoints.source import EMBEDDED
    from verdictree_export.early_exit.request import ExitRequest
    from verdictree_export.exporter import export_release
    from verdictree_export.int8.conversion import Example

    if exit_layer is not None and not exit_conversations:
        raise click.UsageError("expected --early-exit beside --exit-layer, got none; give conversations")
    early_exit = None
    if exit_conversations:
        shown = [conversation for path in exit_conversations for conversation in read(path)]
        early_exit = ExitRequest(shown, exit_layer, max_missed, confidence)
    exploration = Exploration(max_labels, epsilon, width)
    if checkpoint == EMBEDDED and adapter is None:
        adapter = embedded_guard.ADAPTER
        if calibration is None and embedded_guard.is_calibrated(family_name, taxonomies, precision, exploration):
            calibration = embedded_guard.CALIBRATION
    with progress_bars() as progress:
        release = export_release(
            checkpoint,
            family_name,
            taxonomies,
            repository,
            number=number,
            adapter=adapter,
            calibration=calibration,
            precision=precision,
            exploration=exploration,
            max_tokens=max_tokens,
            evaluation=[Example(*pair) for path in evaluation for pair in read_labelled(path)],
            max_change=max_change,
            max_off_grammar=max_off_grammar,
            early_exit=early_exit,
            progress=progress,
        )
    parity = release.parity
    say(
        f"release {release.number}: {release.checkpoint}, "
        f"{', '.join(f'policy {one.name} ({len(one.categories)} categories)' for one in release.policies)}, "
        f"{release.precision}; largest |Δ log p| to the checkpoint {parity.max_abs_log_prob_difference:.1e} "
        f"over {parity.num_nodes} nodes; the ensemble serves release {pinned(repository)}"
    )
    if release.early_exit is not None:
        say_rules(release.early_exit)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:

        def begin(step: str, parts: int) -> Callable[[int], None]:
            task = bars.add_task(step, total=parts)
            return lambda done: bars.advance(task, done)

        yield begin
