"""`runtime.scorer` under the name by which the adapters of format 1 import it; see docs/compatibility.md."""

from verdictree.runtime.scorer import Scorer

__all__ = ["Scorer"]
