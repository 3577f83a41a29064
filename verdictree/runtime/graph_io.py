"""The exported graph's inputs and outputs by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

INPUTS = ("input_ids", "row_ends", "prefix_id")
OUTPUTS = ("label_logits", "log_normalizer", "top_logit", "expansions")


def feeds(input_ids: Sequence[npt.ArrayLike], prefix_ids: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[Any]]:
    """The graph's inputs for a batch: each request's ids (tokens,), its conversation as often as it is asked about,
    and the prompts that it is asked with, as many for each request."""
    rows = [np.asarray(ids, dtype=np.int64) for ids in input_ids]
    return {
        "input_ids": np.concatenate(rows),
        "row_ends": np.cumsum([len(row) for row in rows]).astype(np.int32),
        "prefix_id": np.array(prefix_ids, dtype=np.int32),
    }
