"""What makes the embedded checkpoint the embedded guard: its LoRA adapter, and the calibration of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verdictree.policy import Policy
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.defaults import FAMILY

ADAPTER = Path(__file__).parent / "adapter"  # in a checkout a link to where its recipe puts it
CALIBRATION = ADAPTER / "calibration.json"
_FAMILIES = (FAMILY, "instruct")


def is_calibrated(family_name: str, policies: Sequence[Policy], precision: str, exploration: Exploration) -> bool:
    """Whether an export like this is the one that the calibration was fitted on; another one's scores mean else."""
    own = Policy.read(Path("embedded"))
    return family_name in _FAMILIES and list(policies) == [own] and precision == "fp32" and exploration == Exploration()
