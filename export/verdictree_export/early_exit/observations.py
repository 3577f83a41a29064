"""What the guard says of conversations in full, and what the probe would read of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
from tokenizers import Tokenizer

from verdictree.conversation import Conversation, Role
from verdictree.errors import InvalidConversation, NoVerdict
from verdictree.releases.calibration import Calibration
from verdictree.releases.decision import is_alert
from verdictree.releases.release import GRAPH_FILE, POLICIES_FILE, WEIGHTS_FILE, Release
from verdictree.runtime.graph_io import OUTPUTS
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import batch_feeds
from verdictree.verdict import Verdict
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.tensor_names import EXIT_FEATURES

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Observations:
    """Conversations that one policy judges in messages of one role.

    conversations  (n,)
    features       (n, features) what the probe reads of their hidden states
    alert          (n,) whether the guard, in full, would not simply allow the conversation
    top            (n,) the largest of P(unsafe) and the marginals
    """

    conversations: tuple[Conversation, ...]
    features: Floats
    alert: npt.NDArray[np.bool_]
    top: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.conversations)

    @classmethod
    def of(cls, conversations: Sequence[Conversation], features: Floats, verdicts: Sequence[Verdict]) -> Observations:
        """From the features (n, features), and what the guard says in full."""
        return cls(
            tuple(conversations),
            features,
            np.array([is_alert(verdict) for verdict in verdicts]),
            np.array([max(one.p_unsafe, *(score.marginal for score in one.categories)) for one in verdicts]),
        )

    def part(self, rows: npt.NDArray[np.bool_]) -> Observations:
        """Those of the marked rows."""
        kept = tuple(one for one, keep in zip(self.conversations, rows, strict=True) if keep)
        return Observations(kept, self.features[rows], self.alert[rows], self.top[rows])


def observe(
    graph: Path,
    release: Release,
    tokenizer: Tokenizer,
    calibrations: Mapping[str, Calibration],
    conversations: Iterable[Conversation],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[tuple[str, Role], Observations]:
    """Ask a release's graph, which must have an early exit, about each conversation in full; by policy and role.

    Conversations of several windows, and those that the release does not judge or that are too long, are left out.
    `advance` is called with 1 after each. Raises NoVerdict where the graph gives no finite number.
    """
    with tempfile.TemporaryDirectory(dir=graph.parent.parent) as scratch:  # Triton takes a changed folder for a release
        session = GraphSession(_with_features(graph, Path(scratch)), outputs=[*OUTPUTS, EXIT_FEATURES], prepack=True)
        guard = LocalGuard(release, tokenizer, session.run, calibrations)
        found: dict[tuple[str, Role], list[tuple[Conversation, Floats, Verdict]]] = {}
        for conversation in conversations:
            advance(1)
            try:
                tokenized = guard.tokenize(msgspec.structs.replace(conversation, exact=True))
            except InvalidConversation:
                continue
            if tokenized.windows:
                continue
            *outputs, features = session.run(batch_feeds([tokenized]))
            (verdict,) = guard.outcomes([tokenized], outputs)
            if isinstance(verdict, NoVerdict):
                raise verdict
            role = conversation.judged_role
            found.setdefault((verdict.policy, role), []).append((conversation, features[0], verdict))
    return {key: _gathered(rows) for key, rows in found.items()}


def _gathered(rows: Sequence[tuple[Conversation, Floats, Verdict]]) -> Observations:
    conversations, features, verdicts = zip(*rows, strict=True)
    return Observations.of(conversations, np.stack(features).astype(np.float32), verdicts)


def _with_features(graph: Path, folder: Path) -> Path:
    """A copy of the graph that hands over what its probe reads; its weights are the same files."""
    model = onnx.load(graph, load_external_data=False)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(EXIT_FEATURES))
    for name in (WEIGHTS_FILE, POLICIES_FILE):
        (folder / name).hardlink_to(graph.with_name(name))
    onnx.save(model, folder / GRAPH_FILE)
    return folder / GRAPH_FILE
