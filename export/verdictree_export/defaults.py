"""What an export is told where nobody says otherwise; the limits of the exploration are `Exploration`'s own."""

from __future__ import annotations

FAMILY = "auto"  # the one that the checkpoint's template is recognized as
PRECISION = "fp32"
MAX_TOKENS = 1024  # of a conversation
EXIT_CONFIDENCE = 0.95  # with which the share of conversations that leave early and should not is proven
