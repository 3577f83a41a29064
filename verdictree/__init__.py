"""Verdictree turns a guard LLM into a calibrated multi-label classifier and serves it.

This package is the core: what a verdict is, and how likely. The modules at its root are the words that everybody uses
(conversation, policy, verdict, errors, and what they make: pairs, probes, a canary's share). Its rooms, each of which
uses those above it:

    text           strangers' text, shown and read
    families       how each kind of guard is asked, and what it may answer
    verdict_tree   those answers as tokens, and their probabilities         numpy alone
    files          what survives a crash or a full disk
    releases       what is on disk, who writes it, what is flagged
    runtime        tokenizer, graph and marginals at work                   ONNX Runtime

and the packages that use the core, whose rooms stand in their own `__init__`:

    verdictree_export ──────► a release ──► verdictree_serving ◄── verdictree_client ◄── verdictree_cli
    verdictree_evaluation, verdictree_comparison: what its verdicts are worth
"""

from verdictree.conversation import Conversation, Message
from verdictree.errors import VerdictreeError
from verdictree.policy import Category, Policy
from verdictree.verdict import CategoryScore, GreedyVerdict, Place, Verdict, Window

__all__ = [
    "Category",
    "CategoryScore",
    "Conversation",
    "GreedyVerdict",
    "Message",
    "Place",
    "Policy",
    "Verdict",
    "VerdictreeError",
    "Window",
]
