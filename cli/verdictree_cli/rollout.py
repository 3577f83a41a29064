"""`verdictree rollout …`: releases on a running server, one command an action."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree.wire import URL
from verdictree_cli.connection_options import tls, tls_options
from verdictree_cli.shared_options import repository_option
from verdictree_cli.terminal import Terminal, say, say_json

if TYPE_CHECKING:
    from verdictree_client.rollout import Rollout

_PATH = click.Path(path_type=Path)
_SHARED = (
    repository_option,
    click.option("--url", help="Triton's own gRPC address; default: that of the server on the repository."),
    click.option("--admin-key-file", type=_PATH, help="A key of one's own; default: the server's."),
    tls_options,
    click.option("--who", help="Your name in the journal; default: user@host."),
)
_reason = click.option("--reason", default="", help="Why, for the journal.")
_fraction = click.option("--fraction", type=click.FloatRange(0, 1), required=True, help="Of live requests; 0 stops.")
_release = click.argument("release", type=click.IntRange(min=1))


@click.group()
def rollout() -> None:
    """Bring a release into service beside the live one, compare, promote, go back."""


def _command(function: Callable[..., None]) -> click.Command:
    for option in reversed(_SHARED):
        function = option(function)
    return rollout.command()(function)


@_command
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON line.")
def status(as_json: bool, **shared: Any) -> None:
    """Show what is pinned, staged, split and loaded, and what was done last."""
    import msgspec

    from verdictree_cli.rollout_status import table

    with _rollout(shared) as rollout:
        current = rollout.status()
    if as_json:
        say_json(msgspec.json.encode(current))
        return
    Terminal().print(table(current))
    if current.problem:
        say(f"note: {current.problem}", err=True)


@_command
@_release
@_reason
def stage(release: int, reason: str, **shared: Any) -> None:
    """Verify RELEASE, load it beside the live one, warm it up and try its golden conversations."""
    with _rollout(shared) as rollouts:
        rollouts.stage(release, reason=reason)
    say(f"release {release} is staged as guard_candidate; live traffic is where it was")


@_command
@_fraction
@click.option("--without-texts", is_flag=True, help="Record the verdicts only, not what users wrote.")
@_reason
def shadow(fraction: float, without_texts: bool, reason: str, **shared: Any) -> None:
    """Ask the candidate too about a fraction of live requests, and record both verdicts."""
    with _rollout(shared) as rollouts:
        rollouts.shadow(fraction, record_texts=not without_texts, reason=reason)
    say(f"the candidate is asked too about {fraction:.1%} of live requests" if fraction else "the shadow is over")


@_command
@click.argument("conversations", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--gates", type=_PATH, help="A YAML file of limits; default: the built-in ones.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write comparison.json and .html there.")
def compare(conversations: tuple[Path, ...], gates: Path | None, out: Path | None, **shared: Any) -> None:
    """Compare the candidate with the live release, on what the shadow recorded or on CONVERSATIONS (JSON lines).

    Exit status 2 where a gate fails.
    """
    from verdictree.conversation_file import read
    from verdictree_comparison import gates as gate_files
    from verdictree_comparison import report

    limits = gate_files.load(gates) if gates else gate_files.Gates()
    given = [conversation for path in conversations for conversation in read(path)] if conversations else None
    with _rollout(shared) as rollouts:
        compared = rollouts.compare(given, limits)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.json").write_bytes(compared.to_json())
        (out / "comparison.html").write_text(report.render(compared), encoding="utf-8")
    Terminal().print(report.table(compared))
    say(f"release {compared.candidate} against {compared.live}: {report.summary(compared)}")
    for reason in compared.failed:
        say(f"failed: {reason}")
    if not compared.passed:
        raise click.exceptions.Exit(2)


@_command
@_fraction
@_reason
def canary(fraction: float, reason: str, **shared: Any) -> None:
    """Let the candidate answer a fraction of live requests, chosen by their routing keys."""
    with _rollout(shared) as rollouts:
        rollouts.canary(fraction, reason=reason)
    say(f"the candidate answers {fraction:.1%} of live requests" if fraction else "the canary is over")


@_command
@click.option("--force", is_flag=True, help="Promote although gates fail; needs --reason.")
@_reason
def promote(force: bool, reason: str, **shared: Any) -> None:
    """Make the candidate the live release, if it passed its gates."""
    with _rollout(shared) as rollouts:
        number = rollouts.promote(force=force, reason=reason)
    say(f"release {number} is live; `verdictree rollout rollback` returns to the former one")


@_command
@_reason
def rollback(reason: str, **shared: Any) -> None:
    """Stop: end a canary or shadow, and return to the former release if there is one."""
    with _rollout(shared) as rollouts:
        number = rollouts.rollback(reason=reason)
        notes = rollouts.notes
    for note in notes:
        say(f"note: {note}", err=True)
    say(f"release {number} answers all requests")


@_command
@_release
@click.option("--delete", is_flag=True, help="Remove its files too, if nothing needs them.")
@_reason
def retire(release: int, delete: bool, reason: str, **shared: Any) -> None:
    """Unload RELEASE from the server."""
    with _rollout(shared) as rollouts:
        rollouts.retire(release, delete=delete, reason=reason)
    say(f"release {release} is unloaded" + (" and deleted" if delete else "; its files are kept"))


@_command
@click.argument("release", type=click.IntRange(min=1), required=False)
@click.option("--calibration", type=_PATH, help="A calibration.json that was fitted for RELEASE.")
@click.option("--threshold", "thresholds", multiple=True, help="[CODE=]VALUE; CODE unsafe is P(unsafe). Repeatable.")
@_reason
def derive(
    release: int | None, calibration: Path | None, thresholds: tuple[str, ...], reason: str, **shared: Any
) -> None:
    """Write a release that shares RELEASE's graph (default: the live one's), with other thresholds or calibration."""
    parsed = dict(_threshold(text) for text in thresholds)
    with _rollout(shared) as rollouts:
        derived = rollouts.derive(release, calibration=calibration, thresholds=parsed, reason=reason)
    say(f"release {derived.number} shares the graph; `verdictree rollout stage {derived.number}` loads it")


def _threshold(text: str) -> tuple[str | None, float]:
    code, _, value = text.rpartition("=")
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise click.BadParameter(f"expected [CODE=]VALUE with a value from 0 to 1, got {text!r}")
    return code or None, threshold


@contextmanager
def _rollout(shared: dict[str, Any]) -> Iterator[Rollout]:
    from verdictree.releases.admin_key import read_admin_key
    from verdictree.releases.state_folder import published_address
    from verdictree_client.rollout import Rollout

    key_file = shared["admin_key_file"]
    with Rollout(
        shared["repository"],
        shared["url"] or published_address(shared["repository"]) or URL,
        admin_key=read_admin_key(key_file) if key_file else None,
        tls=tls(shared),
        who=shared["who"],
    ) as rollouts:
        yield rollouts
