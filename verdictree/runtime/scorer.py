"""From the graph's outputs to verdicts: the last step of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verdictree.conversation import Role
from verdictree.errors import NoVerdict
from verdictree.policy import Policy
from verdictree.releases.calibration import Calibration
from verdictree.releases.decision import Decision, undecided
from verdictree.releases.release import Release
from verdictree.runtime.windows import MAX_WINDOWS, num_counts, read_places, windows_of
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict, Window
from verdictree.verdict_tree.estimates import Estimates, one_by_one, worst, worst_windows
from verdictree.verdict_tree.exploration import LEFT, Explored, Floats, exit_log_odds, unpack
from verdictree.verdict_tree.marginals import Marginalizer
from verdictree.verdict_tree.questions import by_question

if TYPE_CHECKING:  # its module needs the tokenizers library
    from verdictree.runtime.tokenization import TokenizedConversation


class Scorer:
    """Turns what the graph computed for a batch into one verdict a request, calibrated where its policy is calibrated.

    `calibrations` maps policies' names to their calibration.
    """

    def __init__(self, release: Release, calibrations: Mapping[str, Calibration] | None = None) -> None:
        self._release = release
        fitted = calibrations or {}
        asked = [(policy, role) for policy in release.policies for role in policy.roles]
        self._decisions = {
            (policy.name, role): Decision(policy, fitted.get(policy.name), role) for policy, role in asked
        }
        self._marginalize = Marginalizer(release.tree)
        tree, label = release.tree, release.tree.grammar.label
        self._columns = {
            (policy.name, role): [
                i if tree.grammar.per_category else tree.labels.index(label(c))
                for i, c in enumerate(policy.of_role(role).categories)
            ]
            for policy, role in asked
        }

    def __call__(
        self,
        label_logits: Floats,
        log_normalizer: Floats,
        top_logit: Floats,
        expansions: npt.NDArray[np.int32],
        *,
        prefix_ids: Sequence[Sequence[int]],
        token_counts: Sequence[Sequence[int]],
    ) -> list[Verdict]:
        """Verdicts of a batch; the first four as `exploration.unpack` takes them, the questions of a request in a row.

        prefix_ids    (batch, windows * questions) the prompts of each request
        token_counts  (batch, counts) as `windows.token_counts` makes them

        Raises NoVerdict where a number that a verdict rests on is not finite: it would be compared with thresholds,
        and reach none. How much of the answer is no verdict at all is not judged here, but by `outcomes`.
        """
        rows = zip(label_logits, log_normalizer, top_logit, expansions, prefix_ids, token_counts, strict=True)
        return [
            self._verdict([part[None] for part in outputs], prefixes, [int(count) for count in counts])
            for *outputs, prefixes, counts in rows
        ]

    def of_batch(self, batch: Sequence[TokenizedConversation], outputs: Sequence[Any]) -> list[Verdict]:
        """Verdicts of a batch from what the graph computed for it; NoVerdict as above."""
        label_logits, log_normalizer, top_logit, expansions = outputs
        return self(
            label_logits,
            log_normalizer,
            top_logit,
            expansions,
            prefix_ids=[conversation.prefix_ids for conversation in batch],
            token_counts=[conversation.token_counts for conversation in batch],
        )

    def outcomes(self, batch: Sequence[TokenizedConversation], outputs: Sequence[Any]) -> list[Verdict | NoVerdict]:
        """What is served of a batch: each request's verdict, or why it has none."""
        rows = [[output[i : i + 1] for output in outputs] for i in range(len(batch))]
        return [
            self.outcome(row, conversation.prefix_ids, conversation.token_counts)
            for row, conversation in zip(rows, batch, strict=True)
        ]

    def outcome(
        self, outputs: Sequence[Any], prefix_ids: Sequence[int], token_counts: Sequence[int]
    ) -> Verdict | NoVerdict:
        """What is served of one request: its verdict, or why it has none. `outputs` as above, of a batch of one.

        A guard whose answer is something else with more probability than the release's `max_off_grammar` says nothing
        of the conversation: P(unsafe) is small because P(safe) is, too. Such a verdict is `undecided`, and `flagged`.
        """
        try:
            (verdict,) = self(*outputs, prefix_ids=[prefix_ids], token_counts=[token_counts])
        except NoVerdict as exc:
            return exc
        if verdict.off_grammar > self._release.max_off_grammar:
            return undecided(verdict)
        return verdict

    def fault(self, tensors: Mapping[str, npt.NDArray[Any]]) -> str | None:
        """What is wrong with the inputs of `outcome`, by name, as a stranger may send them; None where nothing is."""
        release, asked, tree = self._release, self._release.num_questions, self._release.tree
        prefix_id, expansions = tensors["prefix_id"], tensors["expansions"]
        windows = windows_of(prefix_id, asked)
        if windows is None:
            expected = f"[1, {asked}], or {asked} for each of up to {MAX_WINDOWS} windows"
            return f"expected prefix_id of shape {expected}, got {list(prefix_id.shape)}"
        nodes = release.exploration.num_nodes(tree) * prefix_id.size
        shapes = {
            "token_counts": (1, num_counts(windows)),
            "label_logits": (1, nodes, len(tree.vocabulary)),
            "log_normalizer": (1, nodes),
            "top_logit": (1, nodes),
        }
        for name, shape in shapes.items():
            if tensors[name].shape != shape:
                return f"expected {name} of shape {list(shape)}, got {list(tensors[name].shape)}"
        if not ((prefix_id >= 0) & (prefix_id < release.num_prefix_ids)).all():
            return f"expected prefix_id from 0 to {release.num_prefix_ids - 1}, got another"
        has_left = release.early_exit is not None and (expansions == LEFT).all()
        if len(expansions) != 1 or not (has_left or ((expansions >= 0) & (expansions <= tree.unused)).all()):
            return f"expected expansions from 0 to {tree.unused} of one request, got others"
        return None

    def _verdict(self, outputs: Sequence[Any], prefix_ids: Sequence[int], counts: Sequence[int]) -> Verdict:
        release, asked = self._release, self._release.num_questions
        prompt = release.prompt(int(prefix_ids[0]))
        policy = release.policy_named(prompt.policy).of_role(prompt.role)
        log_odds = exit_log_odds(outputs[1], outputs[3])
        if log_odds is not None:
            return self._left(policy, prompt.role, log_odds, counts)
        explored = unpack(release.tree, release.exploration, *(by_question(part, len(prefix_ids)) for part in outputs))
        by_window = [explored[i : i + asked] for i in range(0, len(explored), asked)]
        each = [self._estimates(policy, questions, prompt.role) for questions in by_window]
        estimates = worst(each)
        verdict = Verdict(
            release=release.number,
            policy=policy.name,
            role=prompt.role,
            p_unsafe=estimates.p_unsafe,
            p_safe=estimates.p_safe,
            categories=self._categories(policy, prompt.role, estimates, each),
            unexplored=estimates.unexplored,
            off_grammar=estimates.off_grammar,
            greedy=self._greedy(policy, estimates),
            num_tokens=counts[0],
            num_truncated_tokens=counts[1],
            p_controversial=estimates.class_probabilities.get("controversial"),
            windows=_windows(each, counts),
        )
        return self._decisions[policy.name, prompt.role].applied(verdict)

    def _left(self, policy: Policy, role: Role, log_odds: float, counts: Sequence[int]) -> Verdict:
        """The verdict on a conversation that left early: limits, and nothing that was computed."""
        early_exit = self._release.early_exit
        rule = None if early_exit is None else early_exit.rule(policy.name, role)
        if early_exit is None or rule is None or not log_odds < rule.threshold:
            raise NoVerdict(
                f"no verdict: expected no early exit at log-odds {log_odds:.3g} by release {self._release.number}, got "
                "one; its graph and its manifest are not of one export: export the guard again"
            )
        limit = rule.bound(log_odds)
        verdict = Verdict(
            release=self._release.number,
            policy=policy.name,
            role=role,
            p_unsafe=limit,
            p_safe=1.0 - limit,
            categories=tuple(CategoryScore(each.code, each.shown, 0.0, 0.0, 0.0) for each in policy.categories),
            unexplored=limit,
            off_grammar=0.0,
            greedy=GreedyVerdict("", (), complete=False),
            num_tokens=counts[0],
            num_truncated_tokens=counts[1],
            exit_layer=early_exit.layer,
        )
        return self._decisions[policy.name, role].left(verdict)

    def _estimates(self, policy: Policy, explored: Sequence[Explored], role: Role) -> Estimates:
        _check_finite(explored)
        if not self._release.tree.grammar.per_category:
            return self._marginalize(explored[0], role)
        return one_by_one([self._marginalize(question, role) for question in explored[: len(policy.categories)]])

    def _greedy(self, policy: Policy, estimates: Estimates) -> GreedyVerdict:
        tree, greedy = self._release.tree, estimates.greedy
        written = policy.codes if tree.grammar.per_category else tree.labels
        codes = {tree.grammar.label(category): category.code for category in policy.categories}
        labels = [written[step.label] for step in greedy.steps]
        return GreedyVerdict(greedy.text(tree), tuple(codes.get(label, label) for label in labels), greedy.complete)

    def _categories(
        self, policy: Policy, role: Role, estimates: Estimates, each: Sequence[Estimates]
    ) -> tuple[CategoryScore, ...]:
        columns = self._columns[policy.name, role]
        windows = worst_windows(each)
        return tuple(
            CategoryScore(
                category.code,
                category.shown,
                float(estimates.marginal[column]),
                float(estimates.joint[column]),
                float(estimates.conditional[column]),
                window=int(windows[column]) if len(each) > 1 else None,
            )
            for category, column in zip(policy.categories, columns, strict=True)
        )


def _windows(each: Sequence[Estimates], counts: Sequence[int]) -> tuple[Window, ...]:
    if len(each) == 1:
        return ()
    if len(counts) != num_counts(len(each)):
        raise NoVerdict(
            f"no verdict: expected the places of {len(each)} windows, got none; configurations or adapters in the "
            "repository are of an older version: let `verdictree serve` write to it, and start it again"
        )
    places = read_places(counts)
    return tuple(Window(*place, estimates.p_unsafe) for place, estimates in zip(places, each, strict=True))


def _check_finite(explored: Sequence[Explored]) -> None:
    for question in explored:
        for nodes in (question.root, *question.blocks.values()):
            if not all(np.isfinite(part).all() for part in (nodes.label_logits, nodes.log_normalizer, nodes.top_logit)):
                raise NoVerdict(
                    "no verdict: expected finite numbers from the graph, got infinity or NaN; "
                    "the release is damaged, or its precision is too low for this guard"
                )
