"""The guard's data: splits of the moderation rows, the training mixture, and an export of the splits as JSONL.

Run: python export/recipes/embedded_guard/data.py DATA_DIR --split test --output test.jsonl
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from composing import JOINTS, UNSEEN_JOINTS, Composer
from rows import read_rows, write_rows
from splits import HELD_OUT_SOURCES, Splits, split_rows

from verdictree.policy import Policy
from verdictree_evaluation.data.formats import Row

POLICY = Path(__file__).parents[3] / "policies" / "embedded.yaml"
MAX_CHARACTERS = 450
"""About 110 tokens: no training row is longer."""

_MIXTURE = {
    "unsafe": 0.27,
    "safe": 0.25,
    "two categories": 0.22,
    "three categories": 0.11,
    "unsafe and safe": 0.08,
    "two safe": 0.07,
}
_TURNS_SHARE = 0.18
_MULTILABEL_ROWS = {2: 300, 3: 100}


def load_splits(data_dir: Path, codes: Sequence[str], seed: int) -> Splits:
    """The splits of all JSONL files of a folder."""
    paths = sorted(data_dir.glob("*.jsonl"))
    if not paths:
        raise click.ClickException(f"expected JSONL files in '{data_dir}', found none; give the data's folder")
    return split_rows(read_rows(paths, codes), seed)


def training_rows(rows: Sequence[Row], codes: Sequence[str], count: int, seed: int) -> list[Row]:
    """`count` rows drawn from the training split: single, in turns, and composed, in the recipe's shares."""
    rng = random.Random(f"{seed}/training")
    composer = Composer(rows, codes, rng, MAX_CHARACTERS)
    kinds: dict[str, Callable[[], Row]] = {
        "unsafe": lambda: _perhaps_in_turns(composer, composer.unsafe(), rng),
        "safe": lambda: _perhaps_in_turns(composer, composer.safe(), rng),
        "two categories": lambda: composer.joined(2, 0),
        "three categories": lambda: composer.joined(3, 0),
        "unsafe and safe": lambda: composer.joined(1, 1),
        "two safe": lambda: composer.joined(0, 2),
    }
    drawn = rng.choices(list(_MIXTURE), list(_MIXTURE.values()), k=count)
    return [kinds[kind]() for kind in drawn]


def multilabel_rows(rows: Sequence[Row], codes: Sequence[str], seed: int) -> list[Row]:
    """Different rows composed of two and three categories; some joints are none that training sees."""
    composer = Composer(rows, codes, random.Random(f"{seed}/multilabel"), MAX_CHARACTERS)
    joints = (*JOINTS, *UNSEEN_JOINTS)
    found: dict[str, Row] = {}
    for num_categories, count in _MULTILABEL_ROWS.items():
        enough = len(found) + count
        while len(found) < enough:
            row = composer.joined(num_categories, 0, joints)
            found[row.id] = row
    return list(found.values())


def _perhaps_in_turns(composer: Composer, row: Row, rng: random.Random) -> Row:
    alone = len(row.conversation) == 1
    return composer.in_turns(row) if alone and rng.random() < _TURNS_SHARE else row


_EXPORTED: dict[str, Callable[[Splits, Sequence[str], int], Sequence[Row]]] = {
    "validation": lambda splits, codes, seed: splits.validation,
    "validation_multilabel": lambda splits, codes, seed: multilabel_rows(splits.validation, codes, seed),
    "test": lambda splits, codes, seed: splits.test,
    "test_unseen_sources": lambda splits, codes, seed: [row for row in splits.test if row.source in HELD_OUT_SOURCES],
    "test_multilabel": lambda splits, codes, seed: multilabel_rows(splits.test, codes, seed),
}


@click.command()
@click.argument("data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(list(_EXPORTED)), required=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="JSONL to write.")
@click.option("--seed", default=0, show_default=True)
def main(data_dir: Path, split: str, output: Path, seed: int) -> None:
    """Write a split of the moderation rows in DATA_DIR, the one that training with this seed holds out."""
    codes = Policy.read(POLICY).codes
    exported = _EXPORTED[split](load_splits(data_dir, codes, seed), codes, seed)
    write_rows(exported, output)
    click.echo(f"{len(exported)} rows in {output}")


if __name__ == "__main__":
    main()
