"""Labelled files: every format, and every line that cannot be used."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree_evaluation.data.csv_rows import Columns
from verdictree_evaluation.data.datasets import load
from verdictree_evaluation.errors import BadData

CODES = ("S1", "S2", "S10")


def line(name: str = "a", labels: tuple[str, ...] = ("S1",), kind: str = "targeted", text: str = "hello") -> str:
    turn = {"role": "user", "content": text}
    fields = {"id": name, "source": "x", "conversation": [turn], "labels": labels, "label_kind": kind}
    return json.dumps(fields) + "\n"


def test_shared_format(tmp_path):
    """Lost fields: labels out of the policy's order would be read as other categories."""
    path = tmp_path / "d.jsonl"
    path.write_text(line(labels=("S10", "S1"), kind="composed") + "\n" + line("b", (), "safe"))
    first, second = load([path], CODES, strict=True).rows
    assert (first.labels, first.label_kind, first.place) == (("S1", "S10"), "composed", f"{path}:1")
    assert (second.labels, second.label_kind, second.place) == ((), "safe", f"{path}:3")


def test_paper_format(tmp_path):
    """Reading the paper's rows, all categories of which were annotated, as partly unlabelled."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"llama_guard_3_categories": ["S2", "S10"], "unsafe_query": "q"}\n')
    (row,) = load([path], CODES, strict=True).rows
    assert (row.id, row.labels, row.label_kind, row.text) == ("p-1", ("S2", "S10"), "complete", "q")


def test_csv_with_named_columns(tmp_path):
    """Guessing which column is the text."""
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
    """One bad line ending a long run, vanishing silently, or being reported without its place."""
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
    """A CSV record that is cut off, or has too few fields, being read as a shorter text."""
    path = tmp_path / "t.csv"
    path.write_text('id,text,labels\na,hello,S1\nb,hello\nc,"cut off,S1')
    dataset = load([path], CODES)
    assert [row.id for row in dataset.rows] == ["a"]
    assert [problem.place for problem in dataset.problems] == [f"{path}:3", f"{path}:4"]


def test_duplicates_across_files(tmp_path):
    """Ids that clash between two files: one row's verdict would be the other's."""
    for name in ("x", "y"):
        (tmp_path / f"{name}.jsonl").write_text(line())
    dataset = load([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], CODES)
    assert len(dataset.rows) == len(dataset.problems) == 1


def test_missing_file(tmp_path):
    """A traceback, or an empty data set, for a path that is not there."""
    with pytest.raises(BadData, match="cannot be read"):
        load([tmp_path / "none.jsonl"], CODES)


def rows_of(tmp_path, content, name="d.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load([path], CODES)


def test_a_long_field_is_a_row_like_others(tmp_path):
    """Python's limit of 131,072 characters a field took the row and all after it, without a word."""
    lines = [*(f"hello {i},S1" for i in range(30)), f'"{"x" * 300_000}",S1', *(f"bye {i}," for i in range(30))]
    loaded = rows_of(tmp_path, "text,labels\n" + "\n".join(lines))
    assert (len(loaded.rows), loaded.problems) == (61, [])


DAMAGED = ['"open', '"a"b,S1', 'x,"S1', '"a\nb" c,S1', "a,b,c,d", "only"]


@given(st.lists(st.one_of(st.sampled_from(DAMAGED), st.integers(0, 99)), min_size=1, max_size=12))
def test_no_row_is_lost_behind_a_damaged_one(tmp_path_factory, parts):
    """What is left out must be counted: figures on half of the rows look like figures on all."""
    lines = [part if isinstance(part, str) else f"fine {number} {part},S1" for number, part in enumerate(parts)]
    loaded = rows_of(tmp_path_factory.mktemp("csv"), "text,labels\n" + "\n".join(lines) + "\n")
    found = "\n".join(row.text for row in loaded.rows)
    assert all(line.removesuffix(",S1") in found for line in lines if line.startswith("fine"))
    assert loaded.problems or not any(isinstance(part, str) for part in parts)


def test_lines_are_counted_through_blank_and_long_records(tmp_path):
    """An analyst looks at the line that a problem names."""
    content = 'text,labels\n\n\r\n"a\nb",S1\n\nbad,S9\r\nc,S1\n"d",S9'
    loaded = rows_of(tmp_path, content)
    assert [row.place.rpartition(":")[2] for row in loaded.rows] == ["4", "8"]
    assert [problem.place.rpartition(":")[2] for problem in loaded.problems] == ["7", "9"]


def test_a_column_that_stands_twice_is_refused(tmp_path):
    """The last one won: the labels of another annotator, or an empty text."""
    with pytest.raises(BadData, match="different names, got 'labels' twice"):
        rows_of(tmp_path, "text,labels,labels\na,S1,S2\n")
    assert len(rows_of(tmp_path, "text,labels,,\na,S1,,\n").rows) == 1  # what spreadsheets leave


def test_a_role_column_says_whose_message_it_is(tmp_path):
    """An assistant's answer that is judged as a user's question is asked about by another prompt."""
    loaded = rows_of(tmp_path, "text,labels,role\na,S1,assistant\nb,,user\nc,,\nd,,system\n")
    assert [row.conversation[-1].role for row in loaded.rows] == ["assistant", "user", "user"]
    (problem,) = loaded.problems
    assert "'system'" in problem.message


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    """Windows programs write one; the first row was left out."""
    row = b'{"id":"1","conversation":[{"role":"user","content":"a"}],"labels":["S1"],"label_kind":"complete"}'
    for content, name in ((row, "d.jsonl"), (b"text,labels\na,S1", "d.csv")):
        assert rows_of(tmp_path, codecs.BOM_UTF8 + content, name).problems == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    """Binary junk must be a line in the report or one error, whatever it is named."""
    for name in ("d.csv", "d.jsonl"):
        for head in (b"", b"text,labels\n"):
            try:
                rows_of(tmp_path_factory.mktemp("junk"), head + content, name)
            except BadData as error:
                assert len(str(error)) < 2500
