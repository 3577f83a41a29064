"""Train the embedded guard's adapter further, on labelled rows and for a policy of your own, as they are.

Run: python export/recipes/embedded_guard/adapt.py ROWS… --policy POLICY --output DIR

An interrupted run goes on from DIR/state.pt when it is started again with the same arguments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import click
from encoding import GuardEncoder
from rows import read_rows
from train import run
from training import LoraTraining, Settings

from verdictree import families
from verdictree.errors import InvalidPolicy
from verdictree.policy import Policy
from verdictree_evaluation.data.formats import Row
from verdictree_export.checkpoints.source import EMBEDDED
from verdictree_export.prompts import checkpoint

_ADAPTER = Path(__file__).with_name("adapter")
_WARM_UP, _COOL_DOWN = 5, 10  # steps


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The adapter's folder.")
@click.option("--steps", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--rows-per-step", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--learning-rate", default=3e-4, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the rows' order.")
def main(rows: tuple[Path, ...], policy: Path, output: Path, **options: float) -> None:
    """Train on all ROWS, in any format that `verdictree evaluate` reads; none is held out."""
    settings = Settings(**options, warmup_steps=_WARM_UP, cooldown_steps=_COOL_DOWN)  # type: ignore[arg-type]
    try:
        asked = Policy.read(policy)
    except InvalidPolicy as exc:
        raise click.ClickException(str(exc)) from exc
    drawn = in_rounds(read_rows(rows, asked.codes), settings.steps * settings.rows_per_step, settings.seed)
    guard = checkpoint.load(EMBEDDED)
    encode = GuardEncoder(guard, families.family("instruct"), asked)
    training = LoraTraining(guard.model, encode.prefix, [encode(row) for row in drawn], settings)
    training.begin_with(_ADAPTER)
    run(training, (), output)


def in_rounds(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` of the rows: all of them, shuffled, as often as it takes."""
    rng = random.Random(seed)
    drawn: list[Row] = []
    while len(drawn) < count:
        drawn += rng.sample(rows, len(rows))
    return drawn[:count]


if __name__ == "__main__":
    main()
