"""Gates: what a candidate must keep to be promoted, as YAML.

A gate looks at the end of the interval that speaks against the candidate, not at the figure itself: a candidate passes
when the comparison shows that it is good enough, not when too few conversations fail to show that it is not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from verdictree.text.yaml_lines import YamlError, parse
from verdictree_comparison.errors import InvalidGates


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits; each holds for every row of the comparison that has the figure.

    min_conversations          conversations compared
    max_failures               share that the candidate failed to answer
    max_flips_to_safe          share whose flags all went: harm let through
    max_flips_to_unsafe        share that got its first flag: good users blocked
    min_agreement              share with the same flag, in each category
    max_psi, max_ks            shift of a score's distribution
    max_mean_abs_difference    mean |Δp| of a score
    max_latency_ratio          median latency over the live release's
    """

    min_conversations: int = 200
    max_failures: float = 0.02
    max_flips_to_safe: float = 0.02
    max_flips_to_unsafe: float = 0.05
    min_agreement: float = 0.95
    max_psi: float = 0.25
    max_ks: float = 0.2
    max_mean_abs_difference: float = 0.1
    max_latency_ratio: float = 1.5


class Outcome(msgspec.Struct, frozen=True):
    """One gate's outcome; `found` is the figure's end that was held against `limit`, `where` the row it is of."""

    gate: str
    limit: float
    found: float
    where: str
    passed: bool

    @property
    def reason(self) -> str:
        """Why it failed, in one phrase."""
        kind = "at least" if self.gate.startswith("min_") else "at most"
        where = f" for {self.where}" if self.where else ""
        return f"{self.gate}{where}: expected {kind} {self.limit:g}, got {self.found:.4g}"


def load(path: Path) -> Gates:
    """Read a gates file, whose fields may be left out; InvalidGates, naming it, where it holds anything else."""
    try:
        gates = msgspec.convert(parse(path.read_text(encoding="utf-8-sig")).value or {}, Gates)
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidGates(f"{path}: cannot be read as UTF-8 text: {exc}") from exc
    except YamlError as exc:
        raise InvalidGates(f"{path}:{exc.line}: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise InvalidGates(f"{path}: {exc}; known gates are {', '.join(Gates.__struct_fields__)}") from exc
    return gates


def judge(gates: Gates, found: dict[str, list[tuple[str, float]]]) -> tuple[Outcome, ...]:
    """The outcome of each gate on its worst row; `found` maps a gate's name to (row, figure's end that counts)."""
    outcomes = []
    for name in Gates.__struct_fields__:
        limit, is_floor = getattr(gates, name), name.startswith("min_")
        where, value = (min if is_floor else max)(found[name], key=lambda place: place[1])
        outcomes.append(Outcome(name, limit, value, where, value >= limit if is_floor else value <= limit))
    return tuple(outcomes)
