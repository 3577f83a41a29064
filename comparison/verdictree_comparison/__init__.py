"""Compares two releases by what they say of the same conversations: figures with intervals, gates, a report.

pairs of verdicts ─► arrays.py ─► figures.py ─► comparison.py ─► gates.py: may it be promoted?
                                      flips.py ──────┘    └────► report.py
"""

from verdictree_comparison.comparison import Compared, compare_pairs
from verdictree_comparison.errors import InvalidGates
from verdictree_comparison.gates import Gates

__all__ = ["Compared", "Gates", "InvalidGates", "compare_pairs"]
