"""Slips that people make in a policy file: each is named with its line and what mends it."""

from __future__ import annotations

import re

import pytest

from verdictree.errors import InvalidPolicy
from verdictree.policy import Policy

HEAD = 'name: t\nversion: "1"\n'
ONE = "categories:\n  - {code: S1, name: One}\n"
PLAIN = "  - {code: S2, name: Two}\n"
QUOTES = 'put the value in quotes, as in version: "1"'
BRACKET = "close the bracket"
HYPHEN = "begin each category with a hyphen"
SLIPS = {
    # a value that YAML takes for something else
    "version 1": ("name: t\nversion: 1\n" + ONE, 2, QUOTES),
    "version 1.10 would lose its zero": ("name: t\nversion: 1.10\n" + ONE, 2, QUOTES),
    "version 1_0": ("name: t\nversion: 1_0\n" + ONE, 2, QUOTES),
    "version 010": ("name: t\nversion: 010\n" + ONE, 2, QUOTES),
    "version 1:30, in base 60": ("name: t\nversion: 1:30\n" + ONE, 2, QUOTES),
    "version is a date": ("name: t\nversion: 2026-01-31\n" + ONE, 2, QUOTES),
    "version is a time": ("name: t\nversion: 2026-01-31 10:00:00\n" + ONE, 2, QUOTES),
    "version is nothing": ("name: t\nversion:\n" + ONE, 2, "give it a value"),
    "version is ~": ("name: t\nversion: ~\n" + ONE, 2, "give it a value"),
    "name is a number": ('name: 7\nversion: "1"\n' + ONE, 1, QUOTES),
    "code NO": (HEAD + "categories:\n  - {code: NO, name: Norway}\n", 4, QUOTES),
    "code yes": (HEAD + "categories:\n  - {code: yes, name: x}\n", 4, QUOTES),
    "code off": (HEAD + "categories:\n  - {code: off, name: x}\n", 4, QUOTES),
    "code 1": (HEAD + "categories:\n  - {code: 1, name: x}\n", 4, QUOTES),
    "binary": (HEAD + "categories:\n  - {code: S1, name: !!binary aGk=}\n", 4, QUOTES),
    "name begins with #": (HEAD + "categories:\n  - code: S1\n    name: #1 threats\n", 5, "in quotes if that begins"),
    # numbers
    "comma in a flow mapping": (HEAD + "categories:\n  - {code: S1, name: a, threshold: 0,5}\n", 4, "as in 0.5"),
    "comma": (HEAD + "categories:\n  - code: S1\n    name: a\n    threshold: 0,5\n", 6, "a number has a decimal point"),
    "percent": (HEAD + "categories:\n  - {code: S1, name: a, threshold: 50%}\n", 4, "no %"),
    "quoted": (HEAD + 'categories:\n  - {code: S1, name: a, threshold: "0.5"}\n', 4, "no quotes"),
    "above 1": (HEAD + "categories:\n  - {code: S1, name: a, threshold: 5}\n", 4, "from 0 to 1"),
    "no number": (HEAD + "categories:\n  - {code: S1, name: a, threshold: .nan}\n", 4, "from 0 to 1"),
    "calibrated ja": (HEAD + "categories:\n  - {code: S1, name: a, calibrated: ja}\n", 4, "write true or false"),
    "review 30%": (HEAD + "categories:\n  - {code: S1, name: a, review: 30%}\n", 4, "no %"),
    "review 30": (HEAD + "categories:\n  - {code: S1, name: a, review: 30}\n", 4, "from 0 to 1"),
    "review yes": (HEAD + "categories:\n  - {code: S1, name: a, review: yes}\n", 4, "a number has a decimal point"),
    "review above threshold": (
        HEAD + "categories:\n  - {code: S1, name: a}\n  - code: S2\n    name: b\n    threshold: 0.3\n    review: 0.5\n",
        8,
        "expected review below the threshold 0.3 of category 'S2', got 0.5: .*; lower review, or leave it out",
    ),
    "review at the threshold": (
        HEAD + "categories:\n  - {code: S1, name: a, review: 0.3, threshold: 0.3}\n",
        4,
        "expected review below the threshold 0.3 of category 'S1', got 0.3",
    ),
    "review of the whole above its threshold": (
        HEAD + "threshold: 0.5\nreview: 0.6\n" + ONE,
        4,
        "expected review below the threshold 0.5 of the whole answer, got 0.6",
    ),
    "threshold of the whole above 1": (HEAD + "threshold: 50\n" + ONE, 3, "from 0 to 1"),
    # layout
    "tab before a list": (HEAD + "categories:\n\t- {code: S1, name: a}\n", 4, "by spaces, not by tabs"),
    "tab before a key": (HEAD + "categories:\n  - code: S1\n\tname: a\n", 5, "by spaces, not by tabs"),
    "indented otherwise": (HEAD + "categories:\n  - code: S1\n    name: a\n   description: b\n", 6, "as many spaces"),
    "colon in a name": (HEAD + "categories:\n  - code: S1\n    name: Crimes: violent\n", 5, "a colon and a space"),
    "no space after a colon": ('name:t\nversion: "1"\n' + ONE, 2, "after a key stands a colon and a space"),
    "comma in a name": (
        HEAD + "categories:\n  - {code: S1, name: Guns, knives}\n",
        4,
        "with a comma in it goes in quotes",
    ),
    "list as a name": (HEAD + "categories:\n  - {code: S1, name: [One, Two]}\n", 4, "give it one text"),
    "quote left open": (HEAD + 'categories:\n  - {code: S1, name: "One}\n', 5, "close the quotes"),
    "quote within quotes": (HEAD + "categories:\n  - {code: S1, name: 'Don't'}\n", 4, "in quotes"),
    "bracket left open": (HEAD + "categories:\n  - {code: S1, name: One\n", 5, BRACKET),
    "two documents": (HEAD + ONE + "---\n" + HEAD + ONE, 5, "remove what follows ---"),
    "begins with @": ("@name: t\n", 1, "begins with a sign in quotes"),
    # another shape
    "empty": ("", 1, "a policy has name, version and categories"),
    "comments only": ("# later\n", 1, "a policy has name, version and categories"),
    "a list": ("- a\n- b\n", 1, "a policy has name, version and categories"),
    "a web page": ("<html><body>", 1, "a policy has name, version and categories"),
    "below a key": ("policy:\n  name: t\n", 2, "a policy has name, version and categories"),
    "capital letters": ('Name: t\nversion: "1"\n' + ONE, 1, "unknown field `Name`"),
    "categories as a mapping": (HEAD + "categories:\n  S1: One\n", 4, HYPHEN),
    "categories as words": (HEAD + "categories: [S1, S2]\n", 3, "write each category as {code: S1"),
    "categories are nothing": (HEAD + "categories:\n", 3, HYPHEN),
    "misspelt": (HEAD + "categories:\n  - {code: S1, name: a, treshold: 0.5}\n", 4, "a category has code, name, desc"),
    "roles as a word": (HEAD + "roles: user\n" + ONE, 3, r"roles: \[user, assistant\]"),
    "unknown role": (HEAD + "roles: [human]\n" + ONE, 3, r"roles: \[user, assistant\]"),
    # YAML's own devices
    "repeated key": (HEAD + "name: u\n" + ONE, 3, "remove one"),
    "alias of itself": (HEAD + "categories: &a [*a]\n", 3, "write that out"),
    "alias of nothing": (HEAD + "categories: *x\n", 3, r"begins with \* in quotes"),
    "merged with a word": (HEAD + "categories:\n  - {<<: 5, code: S1, name: a}\n", 4, "alias of a mapping"),
    "object of Python": ('!!python/object/apply:os.system ["x"]\n', 1, "remove what begins with !"),
    "half a character": (HEAD + 'categories:\n  - {code: S1, name: "a\\ud800b"}\n', 4, "without control characters"),
}


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Policy.read(path)


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_with_its_line_and_its_fix(slip, tmp_path):
    """YAML's own words for a slip send its author to a manual."""
    content, line, said = SLIPS[slip]
    path = tmp_path / "policy.yaml"
    with pytest.raises(InvalidPolicy, match=said) as refused:
        read(path, content)
    assert re.match(rf"{path}:{line}: [^\n]*$", str(refused.value))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_its_line(encoding, tmp_path):
    """An editor on another system may save so without a word."""
    content = (HEAD + "categories:\n  - {code: S1, name: Güte}\n").encode(encoding)
    with pytest.raises(InvalidPolicy, match=rf":{4 if encoding == 'latin-1' else 1}: .*; save the file as UTF-8"):
        read(tmp_path / "policy.yaml", content)


@pytest.mark.parametrize(
    "content",
    ["\ufeff" + HEAD + ONE, (HEAD + ONE).replace("\n", "\r\n"), HEAD + "categories:\n- &a {code: S1, name: One}\n"],
    ids=["a byte order mark", "Windows' line ends", "an anchor"],
)
def test_what_editors_write_is_read(content, tmp_path):
    """These are no slips."""
    policy = read(tmp_path / "policy.yaml", content)
    assert (policy.name, policy.version, policy.codes) == ("t", "1", ("S1",))


@pytest.mark.parametrize(
    "fields",
    ["review: 0.3, threshold: 0.5", "review: 0, threshold: 0.1", "review: 0.3", "threshold: 0.5"],
)
def test_bands_are_read(fields, tmp_path):
    """A band that may be written is refused, or one of the whole answer becomes a category's."""
    whole = fields.replace(", ", "\n") + "\n"
    policy = read(
        tmp_path / "policy.yaml", HEAD + whole + f"categories:\n  - {{code: S1, name: One, {fields}}}\n" + PLAIN
    )
    first, second = policy.categories
    assert (first.review, first.threshold) == (policy.review, policy.threshold) != (None, None)
    assert (second.review, second.threshold) == (None, None)
