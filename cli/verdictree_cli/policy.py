"""`verdictree policy`: add policies to a release, and check whether the guard knows a policy's categories."""

from __future__ import annotations

from pathlib import Path

import click

from verdictree_cli.shared_options import repository_option


@click.group()
def policy() -> None:
    """Look after a release's policies."""


@policy.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@repository_option
@click.option("--release", "source", type=click.IntRange(min=1), help="The release to add to; default: the pinned.")
def add(files: tuple[Path, ...], repository: Path, source: int | None) -> None:
    """Write a new release: the policies of another one, then those of the YAML FILES, or of names that ship.

    The weights' file is shared and nothing is exported again. The server goes on with the release that it serves:
    `verdictree rollout stage` and `promote` bring the new one into service.
    """
    from verdictree.policy import Policy
    from verdictree.releases.repository import pinned

    policies = [Policy.read(path) for path in files]
    number = source or pinned(repository)
    from verdictree_cli.terminal import say
    from verdictree_export.policy_addition import add_policies

    release = add_policies(repository, number, policies)
    names = ", ".join(one.name for one in release.policies)
    say(f"release {release.number}: the guard of release {number}, asked by the policies {names}")


@policy.command()
@click.argument("name", required=False)
@repository_option
@click.option("--release", "number", type=click.IntRange(min=1), help="The release; default: the pinned.")
@click.option("--probes", "path", type=click.Path(path_type=Path), help="Conversations to ask too: JSON lines.")
def check(name: str | None, repository: Path, number: int | None, path: Path | None) -> None:
    """Ask the guard about probe conversations by policy NAME (default: the release's first).

    The probes are harmless sentences, some made from each category's name and description, and the policy's own
    `exemplars` of each. Warns, with exit status 1, of each category that the guard does not seem to know: its
    probability never moves, or its exemplars are told from harmless sentences little better than by a coin.
    """
    import msgspec
    from rich.table import Table

    from verdictree import probes
    from verdictree.conversation_file import read
    from verdictree.releases.repository import pinned
    from verdictree.runtime.local_guard import LocalGuard
    from verdictree.text.visible import visible
    from verdictree_cli.terminal import Terminal, say

    given = list(read(path)) if path else []
    guard = LocalGuard.load(repository, number or pinned(repository))
    taxonomy = guard.release.policy_named(name)
    own = [probes.Probe(msgspec.structs.replace(conversation, policy=taxonomy.name)) for conversation in given]
    asked = [*probes.probes(taxonomy), *own]
    verdicts = list(guard.classify_all([probe.conversation for probe in asked]))
    table = Table("category", "lowest", "highest", "told", "")
    reaches = probes.reaches(taxonomy, asked, verdicts)
    for reach in reaches:
        row = (
            visible(f"{reach.code} {reach.name}"),
            f"{reach.lowest:.3f}",
            f"{reach.highest:.3f}",
            "" if reach.told is None else f"{reach.told:.2f}",
            reach.warning,
        )
        table.add_row(*row)
    Terminal().print(table)
    doubtful = [f"{reach.code} {reach.warning}" for reach in reaches if reach.warning]
    if doubtful:
        raise click.ClickException(
            f"on {len(verdicts)} probes {'; '.join(doubtful)}: the guard does not seem to know what this is; describe "
            "it otherwise, give the category `exemplars` in the policy, or --probes that should raise it"
        )
    say(f"the guard seems to know every category of policy {taxonomy.name}")
