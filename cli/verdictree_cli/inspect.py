"""`verdictree inspect`: what an export would look like."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from verdictree_cli.shared_options import family_option, policies_option


@click.command()
@click.argument("checkpoint")
@family_option
@policies_option
def inspect(checkpoint: str, family_name: str, policies: tuple[Path, ...]) -> None:
    """Show CHECKPOINT's family, its prompt split and its verdict tree, without loading its weights."""
    from rich.tree import Tree

    from verdictree.policy import Policy
    from verdictree_cli.terminal import Terminal, say
    from verdictree_export.inspection import TESTED_ARCHITECTURES
    from verdictree_export.inspection import inspect as look

    seen = look(checkpoint, family_name, [Policy.read(path) for path in policies])
    tested = "tested" if seen.architecture in TESTED_ARCHITECTURES else "not among the tested ones; the export decides"
    rows = [
        (
            "checkpoint",
            f"{seen.guard.name}: {seen.architecture} ({tested}), {seen.guard.max_positions} positions",
        ),
        ("family", seen.family.name),
        *[("differs", row) for row in seen.differences],
    ]
    for prompt in seen.prompts:
        category = f", category {prompt.category}" if prompt.category else ""
        counts = f"{len(prompt.prefix_ids)} constant tokens before the conversation, {len(prompt.suffix_ids)} after"
        rows.append(("prompt", f"policy {prompt.policy}, role {prompt.role}{category}: {counts}"))
        middle = f"{prompt.uncached_before!r} conversation {prompt.uncached_after!r}"
        rows.append(("", f"… {prompt.prefix[-50:]!r} | {middle} | {prompt.suffix[:50]!r} …"))
    for name, text in rows:
        say(f"{name:<12}{text}")
    console = Terminal(soft_wrap=True)
    apart = f", {len(seen.tree.first_label_trie)} more after a likely verdict" if seen.tree.first_labels_apart else ""
    console.print(_grown(Tree(f"answer ({len(seen.tree.root_trie)} nodes{apart})"), seen.answers))
    if seen.continuations:
        tree = Tree(f"after a label ({len(seen.tree.continuation_trie)} nodes)")
        for labels, branches in seen.continuations.items():
            _grown(tree if len(seen.continuations) == 1 else tree.add(f"after {', '.join(labels)}"), branches)
        console.print(tree)


def _grown(node: Any, branches: Iterable[Any]) -> Any:
    for branch in branches:
        outcome = f"  → {branch.outcome}" if branch.outcome else ""
        _grown(node.add(repr(branch.text) + outcome), branch.branches)
    return node
