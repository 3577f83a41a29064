"""`verdictree inspect`: what an export would look like."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("checkpoint")
@click.option("--family", "family_name", default="auto", show_default=True, help="The guard family; auto: by template.")
@click.option(
    "--policy", "policies", type=click.Path(path_type=Path), required=True, multiple=True, help="Policy YAML."
)
def inspect(checkpoint: str, family_name: str, policies: tuple[Path, ...]) -> None:
    """Show CHECKPOINT's family, its prompt split and its verdict tree, without loading its weights."""
    from rich.tree import Tree

    from verdictree.policy import Policy
    from verdictree_cli.terminal import Terminal, say
    from verdictree_export.inspection import TESTED_ARCHITECTURES
    from verdictree_export.inspection import inspect as look

    found = look(checkpoint, family_name, [Policy.read(path) for path in policies])
    tested = "tested" if found.architecture in TESTED_ARCHITECTURES else "not among the tested ones; the export decides"
    rows = [
        ("checkpoint", f"{found.guard.name}: {found.architecture} ({tested}), {found.guard.max_positions} positions"),
        ("family", found.family.name),
    ]
    for one in found.prompts:
        category = f", category {one.category}" if one.category else ""
        counts = f"{len(one.prefix_ids)} constant tokens before the conversation, {len(one.suffix_ids)} after"
        rows.append(("prompt", f"policy {one.policy}, role {one.role}{category}: {counts}"))
        middle = f"{one.uncached_before!r} conversation {one.uncached_after!r}"
        rows.append(("", f"… {one.prefix[-50:]!r} | {middle} | {one.suffix[:50]!r} …"))
    for name, text in rows:
        say(f"{name:<12}{text}")
    console = Terminal(soft_wrap=True)
    apart = f", {len(found.tree.first_label_trie)} more after a likely verdict" if found.tree.first_labels_apart else ""
    console.print(_grown(Tree(f"answer ({len(found.tree.root_trie)} nodes{apart})"), found.answers))
    if found.continuations:
        tree = Tree(f"after a label ({len(found.tree.continuation_trie)} nodes)")
        for labels, branches in found.continuations.items():
            _grown(tree if len(found.continuations) == 1 else tree.add(f"after {', '.join(labels)}"), branches)
        console.print(tree)


def _grown(node: Any, branches: Iterable[Any]) -> Any:
    for branch in branches:
        outcome = f"  → {branch.outcome}" if branch.outcome else ""
        _grown(node.add(repr(branch.text) + outcome), branch.branches)
    return node
