"""The early exit that an export is asked for: checked at once, its layer chosen on the checkpoint, fitted last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import UnsupportedGuard
from verdictree.releases.calibration import Calibration
from verdictree.releases.early_exit import MAX_MISSED
from verdictree.releases.release import Release
from verdictree_export.defaults import EXIT_CONFIDENCE
from verdictree_export.early_exit import fitting, layer_choice, risk_control
from verdictree_export.early_exit.fitting import Fit
from verdictree_export.early_exit.observations import observe
from verdictree_export.graph.guard_graph import GuardGraph

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ExitRequest:
    """Let plainly safe conversations leave the graph early, by what `conversations` show; see `fitting.fit`.

    `layer` is after how many layers; None: where it saves most, measured on the checkpoint.
    """

    conversations: Sequence[Conversation]
    layer: int | None = None
    max_missed: float = MAX_MISSED
    confidence: float = EXIT_CONFIDENCE

    def check(self, release: Release, num_layers: int) -> None:
        """Raise UnsupportedGuard for what cannot be done, before minutes are spent on it."""
        fitting.check(release)
        needed = 2 * risk_control.alerts_needed(self.max_missed, self.confidence)
        if len(self.conversations) < needed:
            raise UnsupportedGuard(
                f"expected at least {needed} conversations for an early exit, got {len(self.conversations)}: half of "
                f"them prove it, by {needed // 2} that the guard does not simply allow; give more, or allow more to be "
                "missed"
            )
        last = num_layers - 2  # the last layer is computed at the tokens that are read alone
        if self.layer is None:
            layer_choice.candidates(num_layers)
        elif not 1 <= self.layer <= last:
            raise UnsupportedGuard(f"expected an exit layer from 1 to {last} for this guard, got {self.layer}")

    def best_layer(
        self,
        graph: GuardGraph,
        release: Release,
        tokenizer: Tokenizer,
        calibrations: Mapping[str, Calibration],
        advance: Advance,
    ) -> int:
        """After how many layers leaving saves most; see `layer_choice.choose`."""
        return layer_choice.choose(
            graph, release, tokenizer, calibrations, self.conversations, self.max_missed, advance
        )

    def fitted(
        self,
        graph: Path,
        release: Release,
        layer: int,
        tokenizer: Tokenizer,
        calibrations: Mapping[str, Calibration],
        advance: Advance,
    ) -> Fit:
        """The rules and the probe for the finished graph; see `fitting.fit`."""
        observed = observe(graph, release, tokenizer, calibrations, self.conversations, advance)
        return fitting.fit(observed, release, layer, self.max_missed, self.confidence)
