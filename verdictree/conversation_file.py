"""Conversations from a file, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from verdictree.conversation import Conversation, parse
from verdictree.errors import InvalidConversation

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read(path: Path) -> Iterator[Conversation]:
    """The conversations of a file of requests, or of labelled rows, whose messages are named `conversation`.

    Raises InvalidConversation, naming the line, for one that is neither.
    """
    return (conversation for conversation, _ in read_labelled(path))


def read_labelled(path: Path) -> Iterator[tuple[Conversation, tuple[str, ...] | None]]:
    """The same with each row's labels, None where it has none."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = _decoder.decode(line)
            row, labels = fields.get("conversation"), fields.get("labels")
            conversation = parse(line if row is None else b'{"messages":' + bytes(row) + b"}")
            yield conversation, None if labels is None else msgspec.json.decode(labels, type=tuple[str, ...])
        except (msgspec.DecodeError, InvalidConversation) as exc:
            raise InvalidConversation(f"{path}, line {number}: {exc}") from exc
