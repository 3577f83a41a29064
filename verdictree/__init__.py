"""Verdictree turns a guard LLM into a calibrated multi-label classifier and serves it."""

from verdictree.conversation import Conversation, Message
from verdictree.errors import VerdictreeError
from verdictree.policy import Category, Policy
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict

__all__ = [
    "Category",
    "CategoryScore",
    "Conversation",
    "GreedyVerdict",
    "Message",
    "Policy",
    "Verdict",
    "VerdictreeError",
]
