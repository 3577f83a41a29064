"""Conversations from a file: one as JSON, or many, one JSON object a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from verdictree.conversation import Conversation, parse, without_mark
from verdictree.errors import InvalidConversation

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_one(path: Path) -> Conversation:
    """The conversation of a JSON file, `-` being standard input; InvalidConversation, naming the file, for another."""
    content = sys.stdin.buffer.read() if str(path) == "-" else _content(path)
    try:
        return parse(content)
    except InvalidConversation as exc:
        raise InvalidConversation(f"{path}: {exc}") from exc


def read(path: Path) -> Iterator[Conversation]:
    """The conversations of a file of requests, or of labelled rows, whose messages are named `conversation`.

    Raises InvalidConversation for a file that cannot be read or holds none, and, naming the line, for one that is
    neither.
    """
    return (conversation for conversation, _ in read_labelled(path))


def read_labelled(path: Path) -> Iterator[tuple[Conversation, tuple[str, ...] | None]]:
    """The same with each row's labels, None where it has none."""
    lines = [(number, line) for number, line in enumerate(_content(path).splitlines(), start=1) if line.strip()]
    if not lines:
        raise InvalidConversation(f"expected a conversation a line in '{path}', got an empty file")
    for number, line in lines:
        try:
            fields = _fields(line)
            row, labels = fields.get("conversation"), fields.get("labels")
            conversation = parse(line if row is None else b'{"messages":' + bytes(row) + b"}")
            yield conversation, None if labels is None else msgspec.json.decode(labels, type=tuple[str, ...])
        except (msgspec.DecodeError, InvalidConversation) as exc:
            raise InvalidConversation(f"{path}, line {number}: {exc}") from exc


def _fields(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # `parse` says what is wrong


def _content(path: Path) -> bytes:
    try:
        return without_mark(path.read_bytes())
    except OSError as exc:
        raise InvalidConversation(
            f"expected conversations in '{path}', but it cannot be read ({exc.strerror}); give the path of a JSON file"
        ) from exc
