"""`verdictree evaluate` and `verdictree calibrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from verdictree_cli.connection_options import tls, tls_options
from verdictree_cli.shared_options import repository_option, truncate_option
from verdictree_evaluation.data.csv_rows import Columns
from verdictree_evaluation.defaults import CONCURRENCY, MIN_POSITIVES, NUM_RESAMPLES

_COLUMNS = Columns()
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DATA = click.argument("data", nargs=-1, required=True, type=_FILE)
_SHARED = (
    repository_option,
    click.option("--release", "number", type=click.IntRange(min=1), help="The release; default: the pinned."),
    click.option("--policy", help="The policy's name; default: the release's first."),
    click.option("--threads", type=click.IntRange(min=0), default=0, show_default=True, help="0: one a core."),
    truncate_option,
    click.option("--strict", is_flag=True, help="Stop at the first line of DATA that cannot be used."),
    click.option("--csv-text", default=_COLUMNS.text, show_default=True, help="The CSV column of the text."),
    click.option("--csv-labels", default=_COLUMNS.labels, show_default=True, help="The CSV column of the labels."),
    click.option("--csv-id", default=_COLUMNS.id, show_default=True, help="The CSV column of the row's id."),
    click.option("--seed", type=int, default=0, show_default=True, help="Folds and resamples."),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command()
@_DATA
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write.")
@_shared
@click.option("--url", help="Ask a running server's gRPC address instead of loading a release.")
@tls_options
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=CONCURRENCY, show_default=True, help="Requests in flight."
)
@click.option("--tune", type=_FILE, multiple=True, help="Other labelled rows to choose thresholds on; repeatable.")
@click.option(
    "--resamples", type=click.IntRange(min=1), default=NUM_RESAMPLES, show_default=True, help="Of the bootstrap."
)
@click.option("--redact", is_flag=True, help="Leave the rows' texts out of the report.")
def evaluate(data: tuple[Path, ...], out: Path, tune: tuple[Path, ...], **options: Any) -> None:
    """Measure a guard on labelled DATA (JSON lines or CSV): metrics.json, predictions.jsonl and report.html.

    A run that was stopped goes on where it was: no row is scored twice.
    """
    from verdictree_cli.terminal import say
    from verdictree_evaluation.evaluation_run import evaluate_data
    from verdictree_evaluation.session import Session

    options["tls"] = tls(options)
    with _bars() as begin:
        run, path = evaluate_data(Session(options, begin), data, tune, out)
    _tell(run.problems, run.warnings)
    left_out = f", {len(run.problems)} left out" if run.problems else ""
    say(f"{len(run.scored)} rows of {run.guard}{left_out}; see {path}")


@click.command()
@_DATA
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write.")
@_shared
@click.option(
    "--threshold",
    "rules",
    multiple=True,
    help="[CODE:]max-f1, fixed[=0.2], precision=P, recall=R or fpr=F; CODE unsafe is P(unsafe). Repeatable. [max-f1]",
)
@click.option(
    "--min-positives", type=click.IntRange(min=1), default=MIN_POSITIVES, show_default=True, help="Fewer: no threshold."
)
@click.option(
    "--unlabelled",
    type=click.Choice(["masked", "negative"]),
    default="masked",
    show_default=True,
    help="How a category counts that a row says nothing of.",
)
def calibrate(data: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Fit calibrators and thresholds on labelled DATA and write them into a file.

    `verdictree rollout derive` makes a release with them; the one that they were fitted on stays as it is.
    """
    from verdictree_cli.terminal import Terminal, say
    from verdictree_evaluation.calibration_run import calibrate_data
    from verdictree_evaluation.session import Session

    with _bars() as begin:
        summary = calibrate_data(Session(options, begin), data, out)
    _tell(summary.problems, summary.warnings)
    Terminal().print(summary.table())
    say(f"calibration {summary.calibration.version} is in {summary.path}; a release with it: {summary.derive}")


def _tell(problems: Any, warnings: Any) -> None:
    from verdictree_cli.terminal import say

    for problem in problems:
        say(f"left out: {problem}", err=True)
    for warning in warnings:
        say(f"note: {warning}", err=True)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], Callable[[], None]]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            """The task's own estimate, over its last steps."""
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "–/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeLeft())
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def begin(step: str, total: int, done: int) -> Callable[[], None]:
            task = bars.add_task(step, total=total, completed=done)
            return lambda: bars.advance(task)

        yield begin
