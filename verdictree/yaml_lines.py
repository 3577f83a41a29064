"""YAML whose values remember their lines, so that an error can point at one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml


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
    """Read one YAML document of plain values; YamlError for what is none, and for a key that stands twice."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {"$": 1}
        if node is not None:
            _collect(node, "$", lines)
        return Document(yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise YamlError(mark.line + 1 if mark else 1, f"not valid YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:  # a character that YAML forbids
        raise YamlError(1, f"not valid YAML: {' '.join(str(exc).split())}") from exc


def _collect(node: yaml.Node, path: str, lines: dict[str, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _collect(item, f"{path}[{index}]", lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}"
            if inner in lines:
                raise YamlError(key.start_mark.line + 1, f"the key {key.value!r} stands twice; remove one")
            _collect(value, inner, lines)
