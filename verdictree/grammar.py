"""Which strings a family of guards may answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class VerdictGrammar(msgspec.Struct, frozen=True):
    """The answers `lead safe` and `lead unsafe opening label (separator label)*`, each ended by the end of the turn.

    Labels come in any order and may repeat: a guard can write both, so both carry probability.
    """

    safe: str
    unsafe: str
    opening: str
    separator: str
    lead: str = ""

    def safe_answer(self) -> str:
        """The whole answer of a guard that names no category."""
        return self.lead + self.safe

    def unsafe_answer(self, labels: Sequence[str] = ()) -> str:
        """The whole answer that names these labels in this order; the bare unsafe word without labels."""
        body = self.opening + self.separator.join(labels) if labels else ""
        return self.lead + self.unsafe + body
