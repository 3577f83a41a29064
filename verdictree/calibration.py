"""`releases.calibration` under the name by which adapters in releases of format 1 import it; see docs/compatibility.md."""

from verdictree.releases.calibration import load

__all__ = ["load"]
