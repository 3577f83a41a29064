"""The errors of evaluation; every message says what was expected, what was got, and the fix.

VerdictreeError
└── EvaluationError
    ├── BadData          labelled data that cannot be used as it stands
    └── BadPredictions   a predictions file that this run cannot go on from
"""

from verdictree.errors import VerdictreeError


class EvaluationError(VerdictreeError):
    """Any error that evaluation raises on purpose."""


class BadData(EvaluationError):
    """Labelled data that cannot be used as it stands."""


class BadPredictions(EvaluationError):
    """A predictions file that this run cannot go on from."""
