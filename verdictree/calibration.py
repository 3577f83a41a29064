"""`releases.calibration` under the name by which the adapters of format 1 import it; see docs/compatibility.md."""

from verdictree.releases.calibration import load

__all__ = ["load"]
