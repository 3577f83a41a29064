"""One conversation as two releases judged it: what a comparison is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from verdictree.conversation import Conversation
from verdictree.errors import InvalidConversation
from verdictree.verdict import Verdict


class Pair(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The live release's verdict beside the candidate's, each with the milliseconds that it took.

    `candidate` is None where the candidate failed, and `error` says how. `conversation` is None where texts are not
    recorded. `num_dropped` counts the requests that should have been recorded before this one and were not, since the
    server started recording.
    """

    live: Verdict
    live_ms: float
    candidate: Verdict | None = None
    candidate_ms: float = 0.0
    error: str = ""
    conversation: Conversation | None = None
    num_dropped: int = 0


_decoder = msgspec.json.Decoder(Pair)


def read(path: Path) -> Iterator[Pair]:
    """The pairs of a record, one JSON object a line; a last line that a crash cut off is left out.

    Raises InvalidConversation, naming the line, for another that is no pair.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.endswith(b"\n"):
                try:
                    yield _decoder.decode(line)
                except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
                    raise InvalidConversation(f"{path}, line {number}: no pair of verdicts ({exc}); remove it") from exc
