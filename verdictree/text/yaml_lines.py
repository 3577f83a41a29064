"""YAML whose values remember their lines, so that an error can point at one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from verdictree.text.visible import bounded, quoted

_DEEPEST, _LARGEST = 32, 100_000
_FIXES = {
    "'\\t'": "indent by spaces, not by tabs",
    "cannot start any token": "put text that begins with a sign in quotes",
    "mapping values are not allowed": "text with a colon in it goes in quotes; after a key stands a colon and a space",
    "expected <block end>": "indent what belongs together by as many spaces",
    "another document": "a file holds one document: remove what follows ---",
    "flow mapping": "close the bracket, and put text with quotes, commas or brackets in it in quotes",
    "flow sequence": "close the bracket, and put text with quotes, commas or brackets in it in quotes",
    "quoted scalar": "close the quotes; a quote in text in single quotes is written twice",
    "constructor for the tag": "remove what begins with !",
    "undefined alias": "put text that begins with * in quotes",
    "for merging": "what follows << must be the alias of a mapping",
}
_TEXT, _NOTHING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"


class YamlError(Exception):
    """Text that is not YAML, or says one thing twice; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Document:
    """A YAML document's value, and the line of every part by its path (`$.categories[2].code`)."""

    value: Any
    lines: dict[str, int]

    def line(self, path: str) -> int:
        """The line of the part at `path`, or of the closest part around it."""
        while path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["))]
        return self.lines[path]

    def line_of_error(self, message: str) -> int:
        """The line of the part that a msgspec.ValidationError speaks of."""
        place = re.search(r"at `(\$[^`]*)`", message)
        unknown = re.search(r"unknown field `([^`]*)`", message)
        path = place.group(1) if place else "$"
        return self.line(f"{path}.{unknown.group(1)}" if unknown else path)


def parse(text: str) -> Document:
    """Read one YAML document of plain values.

    Raises YamlError for what is none, for a key that stands twice, for more than 32 levels or 100,000 values, aliases
    written out, and for an alias that stands for itself.
    """
    try:
        _check_bounds(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {"$": 1}
        if node is not None:
            _collect(node, "$", lines)
        return Document(yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise YamlError(mark.line + 1 if mark else 1, _said(exc)) from exc
    except yaml.YAMLError as exc:  # a character that YAML forbids
        raise YamlError(1, f"not valid YAML: {' '.join(str(exc).split())}") from exc


def _said(exc: yaml.MarkedYAMLError) -> str:
    """What is wrong, and how to mend it where PyYAML's words are known."""
    words = f"{exc.context or ''} {exc.problem or ''}"
    fix = next((fix for mark, fix in _FIXES.items() if mark in words), None)
    return f"not valid YAML: {exc.problem or exc.context}" + (f"; {fix}" if fix else "")


def _check_bounds(text: str) -> None:
    """Raise YamlError for nesting without end, and for aliases that stand for themselves or for too much."""
    sizes: dict[str, int] = {}
    stack: list[list[Any]] = [[None, 0]]  # the anchor of each part that is open, and its nodes, aliases written out
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            name = event.anchor or ""
            if any(name == anchor for anchor, _ in stack):
                raise YamlError(line, f"the alias *{bounded(name, 40)} stands for what it is a part of; write that out")
            stack[-1][1] += sizes.get(name, 0)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            stack.append([event.anchor, 1])
        elif isinstance(event, yaml.ScalarEvent):
            stack[-1][1] += 1
            sizes[event.anchor or ""] = 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, size = stack.pop()
            stack[-1][1] += size
            sizes[anchor or ""] = size
        if len(stack) > _DEEPEST:
            raise YamlError(line, f"expected at most {_DEEPEST} levels, got more; is a bracket left open?")
        if stack[-1][1] > _LARGEST:
            raise YamlError(line, f"expected at most {_LARGEST} values, got more; aliases count as what they stand for")


def _collect(node: yaml.Node, path: str, lines: dict[str, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect(item, f"{path}[{index}]", lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(line, "expected a word as a key, got a list or a mapping")
            if key.tag != _TEXT and value.tag == _NOTHING and not value.value:
                raise YamlError(line, _split_number(node, key))
            inner = f"{path}.{key.value}"
            if inner in lines:
                raise YamlError(line, f"the key {quoted(key.value)} stands twice; remove one")
            _collect(value, inner, lines)
    elif node.tag != _TEXT:
        _check_scalar(node)


def _check_scalar(node: yaml.Node) -> None:
    try:
        yaml.SafeLoader("").construct_object(node)
    except (ValueError, AttributeError, TypeError, KeyError, ArithmeticError) as exc:  # PyYAML lets its own faults out
        said = f"expected a value that can be read, got {quoted(node.value)} ({exc}); put text in quotes"
        raise YamlError(node.start_mark.line + 1, said) from exc


def _split_number(node: yaml.MappingNode, key: yaml.ScalarNode) -> str:
    """What to say of `{threshold: 0,5}`, whose comma begins the key 5."""
    names = [key for key, _ in node.value]
    at = names.index(key)
    before = f"{names[at - 1].value}: {node.value[at - 1][1].value}," if at else ""
    found = quoted(f"{before}{key.value}")
    return f"expected a key with a value after the comma, got {found}; a decimal point is a dot, as in 0.5"
