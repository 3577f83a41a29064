"""Labelled files: every format, and every line that cannot be used."""

from __future__ import annotations

import json

import pytest

from verdictree_evaluation.datasets import load
from verdictree_evaluation.errors import BadData
from verdictree_evaluation.formats import Columns

CODES = ("S1", "S2", "S10")


def line(name: str = "a", labels: tuple[str, ...] = ("S1",), kind: str = "targeted", text: str = "hello") -> str:
    turn = {"role": "user", "content": text}
    fields = {"id": name, "source": "x", "conversation": [turn], "labels": labels, "label_kind": kind}
    return json.dumps(fields) + "\n"


def test_shared_format(tmp_path):
    """Guards against lost fields: labels out of the policy's order would be read as other categories."""
    path = tmp_path / "d.jsonl"
    path.write_text(line(labels=("S10", "S1"), kind="composed") + "\n" + line("b", (), "safe"))
    first, second = load([path], CODES, strict=True).rows
    assert (first.labels, first.label_kind, first.place) == (("S1", "S10"), "composed", f"{path}:1")
    assert (second.labels, second.label_kind, second.place) == ((), "safe", f"{path}:3")


def test_paper_format(tmp_path):
    """Guards against reading the paper's rows, all categories of which were annotated, as partly unlabelled."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"llama_guard_3_categories": ["S2", "S10"], "unsafe_query": "q"}\n')
    (row,) = load([path], CODES, strict=True).rows
    assert (row.id, row.labels, row.label_kind, row.text) == ("p-1", ("S2", "S10"), "complete", "q")


def test_csv_with_named_columns(tmp_path):
    """Guards against guessing which column is the text."""
    path = tmp_path / "t.csv"
    path.write_text('name,prompt,codes\nx,"a, ""b""\nc",S1;S10\ny,ok,\n')
    with pytest.raises(BadData, match="expected columns 'text' and 'labels'"):
        load([path], CODES)
    rows = load([path], CODES, strict=True, columns=Columns(text="prompt", labels="codes", id="name")).rows
    assert [(row.id, row.text, row.labels) for row in rows] == [("x", 'a, "b"\nc', ("S1", "S10")), ("y", "ok", ())]


BAD = {
    "an unknown label": (line("b", ("S4",)), "got S4"),
    "a duplicate id": (line("a", ("S2",)), "'a' stood at"),
    "an empty text": (line("b", text="  "), "empty string"),
    "no JSON": ("nonsense\n", "expected one JSON object"),
    "an unknown format": ('{"text": "x"}\n', "got text"),
    "a wrong type": ('{"id": 1, "conversation": [], "labels": [], "label_kind": "safe"}\n', "id"),
    "labels of a safe row": (line("b", ("S1",), "safe"), "does not go with labels"),
    "an unsafe row without labels": (line("b", (), "targeted"), "does not go with labels"),
    "no message": ('{"id": "b", "conversation": [], "labels": [], "label_kind": "safe"}\n', "1 to"),
    "a cut last line": (line("b")[:-30], "stops in the middle"),
}


@pytest.mark.parametrize("bad, message", BAD.values(), ids=BAD)
def test_bad_lines_are_named_and_left_out(tmp_path, bad, message):
    """Guards against one bad line ending a long run, vanishing silently, or being reported without its place."""
    path = tmp_path / "d.jsonl"
    end = "" if "stops" in message else line("z", ("S2",))
    path.write_text(line() + bad + end)
    dataset = load([path], CODES)
    assert [row.id for row in dataset.rows] == (["a", "z"] if end else ["a"])
    (problem,) = dataset.problems
    assert problem.place == f"{path}:2" and message in problem.message
    with pytest.raises(BadData, match=f"{path}:2"):
        load([path], CODES, strict=True)


def test_bad_csv_lines(tmp_path):
    """Guards against a CSV record that is cut off, or has too few fields, being read as a shorter text."""
    path = tmp_path / "t.csv"
    path.write_text('id,text,labels\na,hello,S1\nb,hello\nc,"cut off,S1')
    dataset = load([path], CODES)
    assert [row.id for row in dataset.rows] == ["a"]
    assert [problem.place for problem in dataset.problems] == [f"{path}:3", f"{path}:4"]


def test_duplicates_across_files(tmp_path):
    """Guards against ids that clash between two files: one row's verdict would be the other's."""
    for name in ("x", "y"):
        (tmp_path / f"{name}.jsonl").write_text(line())
    dataset = load([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], CODES)
    assert len(dataset.rows) == len(dataset.problems) == 1


def test_missing_file(tmp_path):
    """Guards against a traceback, or an empty data set, for a path that is not there."""
    with pytest.raises(BadData, match="cannot be read"):
        load([tmp_path / "none.jsonl"], CODES)
