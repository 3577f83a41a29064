"""The errors of comparisons; every message says what was expected, what was got, and the fix.

VerdictreeError
├── InvalidGates   a gates file that does not say when a candidate may be promoted
└── BadPairs       verdicts that cannot be compared
"""

from verdictree.errors import VerdictreeError


class InvalidGates(VerdictreeError):
    """A gates file that does not say when a candidate may be promoted."""


class BadPairs(VerdictreeError):
    """Verdicts that cannot be compared."""
