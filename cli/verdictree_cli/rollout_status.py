"""A rollout's status as a person reads it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verdictree.text.visible import visible

if TYPE_CHECKING:
    from verdictree_client.rollout import Status


def table(status: Status) -> Table:
    """The releases with what each is, and the last actions."""
    result = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    result.add_column(no_wrap=True)
    result.add_column()
    for number in status.releases:
        result.add_row(f"release {number}", _role(number, status))
    for entry in status.last:
        about = f" {entry.release}" if entry.release is not None else ""
        reason = f": {entry.reason}" if entry.reason else ""
        error = f" ({entry.details['error']})" if "error" in entry.details else ""
        # Not markup: reasons are free text.
        line = visible(f"{entry.action}{about} {entry.event} by {entry.who}{reason}{error}")
        result.add_row(visible(entry.time[:19]), Text(line))
    return result


def _role(number: int, status: Status) -> str:
    roles = []
    if number == status.stable:
        roles.append("live" if status.serving == number else "pinned, not served")
    if number == status.candidate:
        roles.append("candidate")
        roles += [f"answers {status.canary:.1%}"] if status.canary else []
        roles += [f"shadows {status.shadow:.1%}"] if status.shadow else []
    if number == status.former:
        roles.append("former")
    roles += ["loaded"] if number in status.loaded else []
    return ", ".join(roles) or "on disk"
