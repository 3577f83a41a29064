"""Windows: a conversation that is longer than a guard takes, judged part by part.

A request of several windows holds them side by side, as it holds its questions (`verdict_tree.questions`): the ids of
window 0 once for each question, then those of window 1, …. Windows of one request are therefore of one size.

For example, 20 tokens where 8 are allowed, of which 1 is shared:

    window 0   0 1 2 3 4 5 6 7
    window 1             6 7 8 9 10 11 12 13
    window 2                              12 13 14 15 16 17 18 19

Two would hold 8 + 7 tokens, so there are three; and three of 8 share more than they must.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from verdictree.verdict import Place

MAX_WINDOWS = 32
_SHARED = 8  # neighbours share at least an eighth of what a window may hold, so a text of that length is whole in one


def capacity(limit: int) -> int:
    """How many tokens `MAX_WINDOWS` windows of at most `limit` tokens hold."""
    return limit + (MAX_WINDOWS - 1) * (limit - limit // _SHARED)


def token_windows(num_tokens: int, limit: int) -> tuple[range, ...]:
    """The fewest windows of at most `limit` tokens over `num_tokens` tokens, all of one size, spread evenly.

    Neighbours share at least `limit // 8` tokens. The size is the least that so many windows can have. `limit` is at
    least 1; beyond `capacity(limit)` there are more than `MAX_WINDOWS` windows.
    """
    if num_tokens <= limit:
        return (range(num_tokens),)
    shared = limit // _SHARED
    count = 1 + _divided_up(num_tokens - limit, limit - shared)
    size = _divided_up(num_tokens + (count - 1) * shared, count)
    starts = [number * (num_tokens - size) // (count - 1) for number in range(count)]
    return tuple(range(start, start + size) for start in starts)


def token_counts(num_tokens: int, num_truncated: int, places: Sequence[tuple[Place, Place]]) -> tuple[int, ...]:
    """What the tokenizer tells the scorer of a conversation: the tokens that are judged, and those that were cut off.

    Where there are several windows, four numbers for each follow: the message and the character where it begins, and
    those where it ends.
    """
    numbers = (number for place in places for at in place for number in (at.message, at.character))
    return num_tokens, num_truncated, *numbers


def num_counts(windows: int) -> int:
    """How many numbers `token_counts` are for so many windows."""
    return 2 if windows == 1 else 2 + 4 * windows


def read_places(counts: Sequence[int]) -> list[tuple[Place, Place]]:
    """The places in `token_counts`."""
    return [
        (Place(*counts[start : start + 2]), Place(*counts[start + 2 : start + 4])) for start in range(2, len(counts), 4)
    ]


def windows_of(prefix_id: npt.NDArray[np.int32], num_questions: int) -> int | None:
    """How many windows a request has whose prompts are `prefix_id` (1, windows · questions); None for another shape."""
    windows, rest = divmod(prefix_id.size, num_questions)
    is_whole = prefix_id.ndim == 2 and len(prefix_id) == 1 and rest == 0
    return windows if is_whole and 1 <= windows <= MAX_WINDOWS else None


def apart(
    input_ids: npt.NDArray[Any], prefix_ids: npt.NDArray[Any], windows: int
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The ids (…, tokens) and prompts (…, windows · questions) of a request, window by window."""
    return list(zip(*(np.split(array, windows, axis=-1) for array in (input_ids, prefix_ids)), strict=True))


def side_by_side(outputs: Sequence[Sequence[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
    """What the graph computes for a request of several windows, (1, windows · questions · nodes, …) each, from what it
    computes for each of them."""
    return [np.concatenate(parts, axis=1) for parts in zip(*outputs, strict=True)]


def _divided_up(number: int, by: int) -> int:
    return -(-number // by)
