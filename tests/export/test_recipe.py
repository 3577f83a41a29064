"""The embedded guard's recipe: packing, splits, composed rows, and going on after an interruption."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

# The recipe is a folder of scripts, not an installed package: they import one another as neighbours.
sys.path.insert(0, str(Path(__file__).parents[2] / "export" / "recipes" / "embedded_guard"))

from adapt import in_rounds
from composing import Composer
from data import multilabel_rows
from packing import EncodedRow, answer_loss, attend_packed, pack
from rows import read_rows, write_rows
from splits import HELD_OUT_SOURCES, Splits, split_rows
from training import BASE_NAME, LoraTraining, Settings

from verdictree.conversation import Message
from verdictree_evaluation.data.formats import LabelKind, Row

CODES = ("S1", "S2", "S3")
PREFIX = (5, 9, 11, 3)
_WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "tu", "ren", "sol") for b in ("ba", "de", "fi", "go", "nu", "pel")]


def tiny_llama() -> Any:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


def encoded_rows(count: int) -> list[EncodedRow]:
    rng = random.Random(1)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(64) for _ in range(rng.randint(low, high)))

    return [EncodedRow(tokens(3, 12), tokens(1, 5)) for _ in range(count)]


def written_row(number: int, source: str, *labels: str) -> Row:
    words = random.Random(f"{source}/{number}").choices(_WORDS, k=12)
    kind: LabelKind = "targeted" if labels else "safe"
    return Row(f"{source}-{number}", (Message("user", " ".join(words)),), labels, kind, source)


def fixture_rows() -> list[Row]:
    rows = [written_row(n, "crimes", CODES[n % 3]) for n in range(60)]
    rows += [written_row(n, "chat") for n in range(40)]
    return rows + [written_row(n, source) for source in sorted(HELD_OUT_SOURCES) for n in range(5)]


def test_packed_rows_equal_rows_one_by_one() -> None:
    """Rows that see each other, positions that do not restart, and a prefix without its gradient."""
    rows = encoded_rows(5)
    model, expected = tiny_llama(), tiny_llama()
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*PREFIX, *row.inputs]])
        logits = expected(ids, use_cache=False).logits[0, len(PREFIX) + len(row.prompt) - 1 :]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(row.answer), reduction="sum")
    total.backward()
    attend_packed(model)
    loss = answer_loss(model, pack(PREFIX, rows))
    loss.backward()
    torch.testing.assert_close(loss, total)
    for (name, got), want in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_loss_counts_answer_tokens_only() -> None:
    """Training on the prompt: a target must be an answer's token, at the place that predicts it."""
    rows = encoded_rows(3)
    step = pack(PREFIX, rows)
    assert step.targets.tolist() == [token for row in rows for token in row.answer]
    for row, start, end in zip(rows, step.borders.starts, step.borders.ends, strict=True):
        assert step.ids[start:end].tolist() == [*row.prompt, *row.answer[:-1]]
        assert start + len(row.prompt) - 1 in step.predicting.tolist()


def train(folder: Path, stops: list[int]) -> tuple[list[float], LoraTraining]:
    settings = Settings(steps=4, rows_per_step=3, learning_rate=1e-2, warmup_steps=2, rank=4)
    losses: list[float] = []
    for stop in stops:
        training = LoraTraining(tiny_llama(), PREFIX, encoded_rows(12), settings)
        if (folder / "state.pt").is_file():
            training.restore(folder / "state.pt")
        while training.step < stop:
            losses.append(training.run_step())
        training.save_state(folder / "state.pt")
    training.save_adapter(folder / "adapter")
    return losses, training


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """A resumed run that repeats or skips rows, or forgets its optimizer or learning rate."""
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    straight, _ = train(tmp_path / "straight", [4])
    resumed, _ = train(tmp_path / "resumed", [1, 3, 4])
    assert straight == pytest.approx(resumed, abs=1e-6)
    want, got = (adapter_weights(tmp_path / name) for name in ("straight", "resumed"))
    assert want.keys() == got.keys()
    assert all(torch.allclose(want[name], got[name], atol=1e-3) for name in want)
    assert any(tensor.abs().max() > 0 for name, tensor in got.items() if "lora_B" in name)


def test_validation_loss_is_the_mean_over_rows_and_trains_nothing(tmp_path: Path) -> None:
    """A validation figure that depends on how rows are shared out, or that moves the weights."""
    rows = encoded_rows(7)
    training = LoraTraining(tiny_llama(), PREFIX, rows, Settings(steps=4, rows_per_step=3, rank=4))
    alone = [training.mean_loss([row]) for row in rows]
    assert training.mean_loss(rows) == pytest.approx(sum(alone) / len(rows), rel=0.02)
    training.save_adapter(tmp_path / "adapter")
    assert not any(tensor.any() for name, tensor in adapter_weights(tmp_path).items() if "lora_B" in name)


def test_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    """Going on silently with another learning rate than the run began with."""
    _, training = train(tmp_path, [1])
    other = LoraTraining(tiny_llama(), PREFIX, encoded_rows(12), Settings(steps=9, rank=4))
    with pytest.raises(ValueError, match="expected a run with"):
        other.restore(tmp_path / "state.pt")
    assert training.step == 1


def test_further_training_begins_with_the_given_adapter(tmp_path: Path) -> None:
    """Further training that silently starts from a fresh adapter."""
    train(tmp_path, [4])
    further = LoraTraining(tiny_llama(), PREFIX, encoded_rows(12), Settings(steps=9, rank=4))
    further.begin_with(tmp_path / "adapter")
    further.save_adapter(tmp_path / "again" / "adapter")
    want, got = adapter_weights(tmp_path), adapter_weights(tmp_path / "again")
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_adapter_is_small_and_names_no_path(tmp_path: Path) -> None:
    """Fp32 weights and against a machine's path in the published configuration."""
    train(tmp_path, [1])
    weights = adapter_weights(tmp_path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert f'"base_model_name_or_path": "{BASE_NAME}"' in config
    assert str(tmp_path) not in config


def test_cooldown_changes_only_the_last_steps() -> None:
    """A run that is ended early having trained its first steps otherwise than the full one."""
    settings = Settings(steps=100, cooldown_steps=10)
    rates = [settings.rate_until(step, last_step=60) for step in range(60)]
    assert rates[:50] == [settings.rate(step) for step in range(50)]
    assert rates[-1] == pytest.approx(settings.rate(59) / 10)


def ids(rows: tuple[Row, ...]) -> set[str]:
    return {row.id for row in rows}


def test_splits_are_disjoint_and_deterministic() -> None:
    """Test rows in training, and against splits that change with the order of the files."""
    rows = fixture_rows()
    splits = split_rows(rows, seed=0)
    parts = [ids(splits.train), ids(splits.validation), ids(splits.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(rows)
    assert all(parts)
    shuffled = random.Random(3).sample(rows, len(rows))
    assert [ids(part) for part in _parts(split_rows(shuffled, seed=0))] == parts
    assert [ids(part) for part in _parts(split_rows(rows, seed=1))] != parts


def _parts(splits: Splits) -> tuple[tuple[Row, ...], ...]:
    return splits.train, splits.validation, splits.test


def test_held_out_sources_are_only_tested_on() -> None:
    """A figure for an unseen source that training or the thresholds have seen."""
    splits = split_rows(fixture_rows(), seed=0)
    assert not {row.source for row in (*splits.train, *splits.validation)} & HELD_OUT_SOURCES
    assert {row.source for row in splits.test} >= HELD_OUT_SOURCES


def test_near_duplicate_of_a_test_row_is_never_trained_on() -> None:
    """The same prompt, in other case and with a word changed, in training and in a held-out source."""
    rows = fixture_rows()
    held_out = next(row for row in rows if row.source in HELD_OUT_SOURCES)
    for number in range(20):
        text = held_out.text.upper().rsplit(" ", 1)[0] + f", word{number}!"
        rows.append(Row(f"copy-{number}", (Message("user", text),), ("S1",), "targeted", "crimes"))
    splits = split_rows(rows, seed=0)
    kept = [row for part in _parts(splits) for row in part if row.id == held_out.id or row.id.startswith("copy")]
    assert [row for row in kept if row in splits.test] == kept
    assert len(kept) == 1


@pytest.fixture
def composer() -> Composer:
    return Composer(fixture_rows(), CODES, random.Random(0), max_characters=600)


def test_composed_row_names_the_categories_of_its_parts(composer: Composer) -> None:
    """Labels in drawing order, a category twice, and a safe part that adds or takes a label."""
    known = {row.id: row for row in fixture_rows()}
    for num_unsafe, num_safe in ((2, 0), (3, 0), (1, 1), (2, 1)):
        for _ in range(20):
            row = composer.joined(num_unsafe, num_safe)
            parts = [known[name] for name in row.id.split("+")]
            assert row.labels == tuple(sorted(label for part in parts for label in part.labels))
            assert len(row.labels) == num_unsafe
            assert all(part.text in row.text for part in parts)
            assert row.label_kind == "composed"


def test_multilabel_rows_differ() -> None:
    """The same composed row twice in a figure, which a small split would draw sooner or later."""
    pairs = [written_row(n, "crimes", CODES[n % 3]) for n in range(30)]
    rows = multilabel_rows(pairs, CODES, seed=0)
    assert len({row.id for row in rows}) == len(rows) == 400
    assert all(len(row.labels) == 2 for row in rows[:300])


def test_joined_safe_prompts_stay_safe(composer: Composer) -> None:
    """Joining as a cue: safe prompts joined the same way must be labelled safe."""
    row = composer.joined(0, 2)
    assert row.labels == ()
    assert row.label_kind == "safe"


def test_only_an_agent_that_refuses_takes_the_label_away(composer: Composer) -> None:
    """A harmful last message labelled safe, or a refusal labelled unsafe, once there are turns."""
    unsafe, seen = next(row for row in fixture_rows() if row.labels), set()
    for _ in range(100):
        row = composer.in_turns(unsafe)
        speaker, repeats = row.conversation[-1].role, unsafe.text in row.text
        assert [message.role for message in row.conversation] == ["user", "assistant", "user"][: len(row.conversation)]
        assert row.labels == (unsafe.labels if repeats else ())
        assert row.label_kind == ("targeted" if row.labels else "safe")
        seen.add((speaker, repeats))
    assert seen == {("user", True), ("assistant", True), ("assistant", False)}


def test_rows_survive_writing_and_wrong_ones_are_named(tmp_path: Path) -> None:
    """An exported split that reads back otherwise, and against a silent unknown label."""
    path = tmp_path / "rows.jsonl"
    write_rows(fixture_rows(), path)
    assert [msgspec.structs.replace(row, place="") for row in read_rows([path], CODES)] == fixture_rows()
    assert str(tmp_path) not in path.read_text()
    write_rows([written_row(0, "mine", "S4")], path)
    with pytest.raises(click.ClickException, match=r"rows\.jsonl:1: expected labels .* got S4; correct the line"):
        read_rows([path], CODES)


def test_adapting_sees_every_row_before_any_comes_again() -> None:
    rows = [written_row(number, "own") for number in range(5)]
    drawn = in_rounds(rows, 12, seed=0)
    assert {row.id for row in drawn[:5]} == {row.id for row in drawn[5:10]} == {row.id for row in rows}
    assert len(drawn) == 12
    assert drawn == in_rounds(rows, 12, seed=0) != in_rounds(rows, 12, seed=1)
