"""What a request to the graph may ask: nothing that the release's own tokenizer would not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from verdictree.releases.release import MANIFEST, Release
from verdictree.runtime.windows import MAX_WINDOWS, apart, windows_of


@dataclass(frozen=True)
class GraphLimits:
    """The shapes and ranges of a release's requests.

    num_questions  how often a request holds its conversation, once for each prompt that asks about it
    num_prefix_ids  how many numbers of prompts there are to choose from
    max_tokens     of a window of the conversation, mostly all of it
    """

    num_questions: int
    num_prefix_ids: int
    max_tokens: int

    @classmethod
    def load(cls, version_directory: Path) -> Self | None:
        """The limits of the release in a model's directory, None for a model that is no release's."""
        if not (version_directory / MANIFEST).is_file():
            return None
        release = Release.load(version_directory)
        return cls(release.num_questions, release.num_prefix_ids, release.max_tokens)

    def fault(self, tensors: Mapping[str, NDArray[Any]]) -> str | None:
        """What is wrong with a request, expected and got; None where nothing is."""
        ids, prefix_id = tensors["input_ids"], tensors["prefix_id"]
        # A warm-up asks one question; the guard's tokenizer asks all of them, of each window.
        if prefix_id.shape != (1, 1) and windows_of(prefix_id, self.num_questions) is None:
            expected = f"[1, {self.num_questions}], or {self.num_questions} for each of up to {MAX_WINDOWS} windows"
            return f"expected prefix_id of shape {expected}, got {list(prefix_id.shape)}"
        if not ((prefix_id >= 0) & (prefix_id < self.num_prefix_ids)).all():
            return f"expected prefix_id from 0 to {self.num_prefix_ids - 1}, got another"
        asked = prefix_id.size
        if ids.ndim != 2 or len(ids) != 1 or not asked <= ids.size <= self.max_tokens * asked or ids.size % asked:
            return f"expected input_ids of shape [1, 1 to {self.max_tokens}], {asked} times over, got {list(ids.shape)}"
        # The largest is the graph's to check: a token that it does not know fails the run of this request alone.
        return None if np.min(ids) >= 0 else "expected input_ids from 0 on, got a negative one"

    def windows(self, tensors: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
        """A request without a fault, window by window, each as a request of its own."""
        count = windows_of(tensors["prefix_id"], self.num_questions) or 1
        parts = apart(tensors["input_ids"], tensors["prefix_id"], count)
        return [{"input_ids": ids, "prefix_id": prefix_id} for ids, prefix_id in parts]
