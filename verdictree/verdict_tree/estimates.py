"""The probabilities of one conversation, and how those of several questions, or of several windows, become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verdictree.families.grammar import VerdictClass
from verdictree.verdict_tree.greedy import GreedyPath, GreedyStep

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """The probabilities of one conversation; arrays have shape (labels,), everything lies in [0, 1].

    class_probabilities  probability that the answer begins with a verdict of each class of the grammar
    marginal             lower bound of the probability that the answer names the label, at whatever place
    joint, conditional   the two estimates along the greedy answer
    unexplored           probability of the answers that were not followed to their end, each of which may name any
                         label: true marginal ≤ marginal + unexplored
    off_grammar          probability of those among them that leave the grammar: no verdict, or one in another form
    """

    class_probabilities: dict[VerdictClass, float]
    marginal: Array
    joint: Array
    conditional: Array
    unexplored: float
    off_grammar: float
    greedy: GreedyPath

    @property
    def p_safe(self) -> float:
        """Probability that the answer begins with a safe verdict."""
        return self.class_probabilities["safe"]

    @property
    def p_unsafe(self) -> float:
        """Probability that the answer begins with an unsafe verdict."""
        return self.class_probabilities["unsafe"]


def worst_windows(windows: Sequence[Estimates]) -> npt.NDArray[np.int64]:
    """The number of the window with each label's largest marginal, (labels,)."""
    return np.asarray(np.argmax([window.marginal for window in windows], axis=0), np.int64)


def worst(windows: Sequence[Estimates]) -> Estimates:
    """The estimates of a conversation from those of its windows, each judged by itself.

    A label's are those of its worst window, so of every window its true marginal ≤ marginal + unexplored.
    """
    of_label = worst_windows(windows), np.arange(len(windows[0].marginal))
    names = windows[0].class_probabilities
    return Estimates(
        class_probabilities={
            name: (min if name == "safe" else max)(window.class_probabilities[name] for window in windows)
            for name in names
        },
        marginal=np.array([window.marginal for window in windows])[of_label],
        joint=np.array([window.joint for window in windows])[of_label],
        conditional=np.array([window.conditional for window in windows])[of_label],
        unexplored=max(window.unexplored for window in windows),
        off_grammar=max(window.off_grammar for window in windows),
        greedy=max(windows, key=lambda window: window.p_unsafe).greedy,
    )


def one_by_one(categories: Sequence[Estimates]) -> Estimates:
    """The estimates of one conversation from those of each category, asked by itself: label i is category i.

    The answers to different questions have no joint distribution: P(unsafe) is that of the worst category, a lower
    bound of the probability that any is violated.
    """
    p_unsafe = np.array([category.p_unsafe for category in categories])
    named = np.array([category.greedy.unsafe for category in categories])
    steps = tuple(GreedyStep(int(i), float(p_unsafe[i]), float(p_unsafe[i])) for i in np.flatnonzero(named))
    worst = int(np.argmax(np.where(named, 1.0 + p_unsafe, p_unsafe)))
    complete = all(category.greedy.complete for category in categories)
    return Estimates(
        class_probabilities={
            "safe": min(category.p_safe for category in categories),
            "unsafe": float(p_unsafe.max()),
        },
        marginal=p_unsafe,
        joint=np.where(named, p_unsafe, 0.0),
        conditional=np.where(named, p_unsafe, 0.0),
        unexplored=max(category.unexplored for category in categories),
        off_grammar=max(category.off_grammar for category in categories),
        greedy=replace(categories[worst].greedy, steps=steps, complete=complete),
    )
