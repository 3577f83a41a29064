"""The command line: every command is a module here, and uses the package whose work it is.

    inspect  export  policy  early-exit ► verdictree_export
    serve ────────────────────────► verdictree_serving
    classify  rollout ────────────► verdictree_client
    evaluate  calibrate ──────────► verdictree_evaluation

A package is imported when its command is called, so `--help` needs none but its defaults; `extras` says which extra
brings it. `terminal` is the one way to print, `display` what a verdict looks like. Nothing imports this package.
"""

from __future__ import annotations

import errno
from typing import Any

import click

from verdictree.errors import VerdictreeError
from verdictree.text.visible import visible
from verdictree_cli import extras
from verdictree_cli.classify import classify
from verdictree_cli.early_exit import early_exit
from verdictree_cli.evaluate import calibrate, evaluate
from verdictree_cli.export import export
from verdictree_cli.gateway import gateway, gateway_key
from verdictree_cli.inspect import inspect
from verdictree_cli.policy import policy
from verdictree_cli.rollout import rollout
from verdictree_cli.serve import serve


class _Commands(click.Group):
    """Says every error that Verdictree raises on purpose, and the system's own, in one line, with exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        arguments = list(ctx.args)  # after the command's name; they are used up when it runs
        try:
            return super().invoke(ctx)
        except VerdictreeError as exc:
            raise click.ClickException(" ".join(str(exc).split())) from exc
        except OSError as exc:
            if exc.errno == errno.EPIPE:  # whoever read our output has enough; click ends quietly
                raise
            raise click.ClickException(visible(" ".join(str(exc).split()))) from exc
        except ModuleNotFoundError as exc:
            raise click.ClickException(
                extras.fix([ctx.invoked_subcommand or "", *arguments], exc.name or str(exc))
            ) from exc


@click.group(
    cls=_Commands,
    commands=[inspect, export, early_exit, policy, serve, gateway, gateway_key, classify, evaluate, calibrate, rollout],
)
@click.version_option(package_name="verdictree")
def main() -> None:
    """Turn a guard LLM into a calibrated multi-label classifier and serve it."""
