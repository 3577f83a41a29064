"""Fine-tune the embedded demonstration guard.

Run: python export/recipes/embedded_guard/train.py DATA_DIR --output DIR

An interrupted run goes on from DIR/state.pt when it is started again with the same arguments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from data import POLICY, load_splits, training_rows
from encoding import GuardEncoder
from packing import EncodedRow
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rows import read_rows
from training import LoraTraining, Settings

from verdictree import families
from verdictree.policy import Policy
from verdictree_export.checkpoints.source import EMBEDDED
from verdictree_export.prompts import checkpoint

_STEPS_PER_STATE = 10
_STEPS_PER_VALIDATION = 50
_NUM_VALIDATION_ROWS = 64


@click.command()
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The adapter's folder.")
@click.option(
    "--jsonl",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Further training rows of your own, in any format that `verdictree evaluate` reads; none is held out.",
)
@click.option(
    "--adapter",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Train this adapter further, with the seed that it was trained with; default: a new one.",
)
@click.option("--steps", default=1000, show_default=True)
@click.option("--stop-after", type=int, help="Cool down early and end after this step; default: after all.")
@click.option("--rows-per-step", default=16, show_default=True)
@click.option("--learning-rate", default=6e-4, show_default=True)
@click.option("--rank", default=16, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the split, the rows' order and the adapter's start.")
def main(
    data_dir: Path,
    output: Path,
    jsonl: tuple[Path, ...],
    adapter: Path | None,
    stop_after: int | None,
    **options: float,
) -> None:
    """Train on the training split of DATA_DIR and write the adapter, its state and its log to --output."""
    settings = Settings(**options)  # type: ignore[arg-type] # click has converted each to its default's type
    policy = Policy.read(POLICY)
    splits = load_splits(data_dir, policy.codes, settings.seed)
    rows = [*splits.train, *read_rows(jsonl, policy.codes)]
    drawn = training_rows(rows, policy.codes, settings.steps * settings.rows_per_step, settings.seed)
    held_out = training_rows(splits.validation, policy.codes, _NUM_VALIDATION_ROWS, settings.seed)
    guard = checkpoint.load(EMBEDDED)
    encode = GuardEncoder(guard, families.family("instruct"), policy)
    guard.model.to("cuda" if torch.cuda.is_available() else "cpu")
    training = LoraTraining(guard.model, encode.prefix, [encode(row) for row in drawn], settings, stop_after)
    if adapter is not None:
        training.begin_with(adapter)
    run(training, [encode(row) for row in held_out], output)


def run(training: LoraTraining, held_out: Sequence[EncodedRow], folder: Path) -> None:
    """Train to the last step and write the adapter, its state and its log into `folder`; go on from a state there."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.pt"
    if state.is_file():
        try:
            training.restore(state)
        except ValueError as exc:
            raise click.ClickException(f"{state}: {exc}; remove it or give the same options") from exc
        click.echo(f"going on after step {training.step}")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    losses = (TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[validation]}"))
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), *losses) as progress:
        blank = {"rate": "", "loss": "", "validation": ""}
        task = progress.add_task("training", total=training.last_step, completed=training.step, **blank)
        while training.step < training.last_step:
            start = time.perf_counter()
            loss = training.run_step()
            seconds = time.perf_counter() - start
            figures = {"step": training.step, "loss": round(loss, 4), "seconds": round(seconds, 2)}
            last = training.step == training.last_step
            if held_out and (training.step % _STEPS_PER_VALIDATION == 0 or last):
                figures["validation_loss"] = round(training.mean_loss(held_out), 4)
                progress.update(task, validation=f"validation {figures['validation_loss']:.3f}")
            with (folder / "log.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(figures) + "\n")
            progress.update(task, advance=1, rate=f"{seconds:.1f} s/step", loss=f"loss {loss:.3f}")
            if training.step % _STEPS_PER_STATE == 0 or last:
                training.save_state(state)
    training.save_adapter(folder)


if __name__ == "__main__":
    main()
