"""The worked examples in the docstrings of the graph's modules, drawn again by the code itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from core.real_encodings import llama_3, qwen
from core.test_worked_examples import LABELS, qwen_tree
from drawings import shown, stands_in, table
from onnx import TensorProto
from test_branches import branching_model

from verdictree.families.grammar import label_list
from verdictree.releases.prompt import Prompt
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.graph import attention, blocks, compiled_policies, frontier, prefill_pass
from verdictree_export.graph.blocks import BeamSlots
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.frontier import Selected
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.onnx_file import branches
from verdictree_export.onnx_file.branches import Stage, branch

CONVERSATIONS = ("Hi there", "No")
PADDING = "·"


def prompt(role, prefix, suffix):
    prefix_ids, suffix_ids = (tuple(qwen().encode(text)) for text in (prefix, suffix))
    return Prompt("p", role, prefix, "", "", suffix, prefix_ids, suffix_ids)


PROMPTS = (prompt("user", "Judge this.\n", "\n>"), prompt("assistant", "Check:", ">"))


class Drawn(GuardGraph):
    """The graph around no model: what it would run is kept."""

    def __init__(self):
        caches = [[KeyValues(*torch.zeros(2, 1, 1, len(one.prefix_ids), 1))] for one in PROMPTS]
        policies = CompiledPolicies(PROMPTS, qwen_tree(), Exploration(beam_width=3), caches)
        super().__init__(SimpleNamespace(config=None, dtype=None), policies)

    def _run(self, tokens, positions, varlen, wanted=None, early_exit=None):
        self.tokens, self.positions, self.varlen, self.wanted = tokens.tolist(), positions.tolist(), varlen, wanted
        return torch.zeros(len(tokens), 1)

    def _nodes(self, hidden, rows, nodes):
        return None


@pytest.fixture
def graph():
    return Drawn()


@pytest.fixture
def prefill(graph):
    ids = [qwen().encode(text) for text in CONVERSATIONS]
    cu_seqlens = torch.tensor([0, len(ids[0]), len(ids[0]) + len(ids[1])])
    frontier, _ = graph._prefill(torch.tensor([*ids[0], *ids[1]]), cu_seqlens, torch.tensor([0, 1]))
    return frontier


def spelled(token):
    return shown(qwen().decode([token])) if token else PADDING  # no example has token 0, which is what pads suffixes


def queries_of(graph, row):
    """The tokens of a row of the grid of queries."""
    cells, width = set(graph.varlen.pack.tolist()), graph.varlen.queries.shape[1]
    indices = graph.varlen.queries[row].tolist()
    return [spelled(graph.tokens[at]) if row * width + i in cells else PADDING for i, at in enumerate(indices)]


def keys_of(graph, row):
    """The tokens of a row of the grid of keys, without those that nothing attends to at its end."""
    seen = (graph.varlen.bias[row, 0] == 0).any(0).tolist()
    past = len(seen) - graph.varlen.keys.shape[1]
    own = [graph.tokens[at] for at in graph.varlen.keys[row].tolist()]
    names = [*(spelled(token) for token in (*PROMPTS[row].prefix_ids, *[0] * past)[:past]), *map(spelled, own)]
    return [name if it else PADDING for name, it in zip(names, seen, strict=True)]


def marks(values):
    return ["x" if value else PADDING for value in values]


def test_the_three_orders(graph, prefill):
    """Packed, as queries and as keys the same tokens stand in three orders; a wrong one attends to another request."""
    ids = [qwen().encode(text) for text in CONVERSATIONS]
    parts = [" ".join(map(spelled, one)) for one in ids]
    tokens, width = graph.tokens[sum(map(len, ids)) :], graph.policies.prefix_cache.suffix_and_root_width
    parts += [" ".join(map(spelled, tokens[i : i + width])) for i in range(0, len(tokens), width)]
    lines = ["packed   " + " │ ".join(parts), ""]
    for row in range(2):
        positions = graph.varlen.query_positions[row].tolist()
        queries = queries_of(graph, row)
        shown_positions = [str(p) if name != PADDING else "" for p, name in zip(positions, queries, strict=True)]
        lines += [table([("queries", str(row), *queries), ("position", "", *shown_positions)], gap=1), ""]
    for row in range(2):
        keys = keys_of(graph, row)
        used = len(keys) - next(i for i, name in enumerate(reversed(keys)) if name != PADDING)
        lines.append(f"keys {row}   {' '.join(keys[:used])} and {len(keys) - used} more of padding")
    wanted = [spelled(graph.tokens[at]) for at in graph.wanted.tokens.tolist()]
    half = len(wanted) // 2
    lines += ["", f"logits wanted at  {' '.join(wanted[:half])} │ {' '.join(wanted[half:])}", ""]
    used, queries = 11, queries_of(graph, 0)
    seen = (graph.varlen.bias[0, 0, :, :used] == 0).tolist()
    rows = [("attends to", *keys_of(graph, 0)[:used])]
    rows += [(name, *marks(it)) for name, it in zip(queries, seen, strict=True)]
    stands_in(prefill_pass, "\n".join([*lines, table(rows, gap=1)]))


@pytest.fixture
def selected(graph):
    """Request 0 goes on after S1 and S10, request 1 after S2; of three beam slots each."""
    slots = BeamSlots.of(torch.tensor([0, 1, 3]), 3, 2)
    return Selected(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.zeros(3), slots)


def test_blocks_of_paths(graph, prefill, selected):
    """A block that stands in another slot than its path, or attends to its neighbour, has another path's numbers."""
    policies = graph.policies
    graph._expand(prefill, policies.root_trie, selected, policies.tries[0], entry_alone=False)
    size = len(policies.tries[0].tokens)
    names = [LABELS[last] for last in selected.last.tolist()]
    packed = [" ".join(map(spelled, graph.tokens[i : i + size])) for i in range(0, len(graph.tokens), size)]
    rows = [("path", "request", "slot", "packed", "positions")]
    for i, name in enumerate(names):
        positions = " ".join(map(str, graph.positions[i * size : (i + 1) * size]))
        rows.append((name, str(int(selected.slots.row[i])), str(int(selected.slots.slot[i])), packed[i], positions))
    lines = [table(rows), ""]
    for row in range(2):
        queries = queries_of(graph, row)
        lines.append(f"queries {row}   " + " │ ".join(" ".join(queries[i : i + size]) for i in (0, size)))
    past = graph.varlen.bias.shape[3] - graph.varlen.keys.shape[1]
    queries = queries_of(graph, 0)
    own = (graph.varlen.bias[0, 0, :, past : past + 2 * size] == 0).tolist()
    rows = [("attends to", *queries), *((name, *marks(it)) for name, it in zip(queries, own, strict=True))]
    stands_in(blocks, "\n".join([*lines, "", table(rows, gap=1)]))


def test_what_a_path_attends_to(graph, prefill, selected):
    """Of the trie before it a path sees its own nodes, spliced in at the trie's place among the keys."""
    policies, keys = graph.policies, keys_of(graph, 0)[:11]
    after = graph._expand(prefill, policies.root_trie, selected, policies.tries[0], entry_alone=False)
    rows = [("keys of request 0", *keys), ("after the prefill pass", *marks(prefill.visible[0, :11].tolist()))]
    rows += [(f"after {LABELS[i]}", *marks(after.visible[i, :11].tolist())) for i in range(2)]
    stands_in(frontier, table(rows, gap=1))


def test_paths_through_tries():
    """What a search begins with, and what a continuation class is before any label, depends on the root trie."""
    encoding, labels = llama_3(), ("Hate", "Sexual (minor)")
    grammar = label_list("safe", "unsafe", "\n", ", ")

    def spell(tokens):
        return " ".join(shown(encoding.decode([token])) for token in tokens)

    parts = []
    for apart in (False, True):
        one = compile_tree(grammar, labels, encoding.encode, [10**6], apart)
        tries = [("root trie", compiled_policies.root_paths(one), one.root_trie)]
        if apart:
            tries.append(("first-label trie", compiled_policies.first_label_paths(one), one.first_label_trie))
        tries.append(("continuation trie", compiled_policies.further_label_paths(one), one.continuation_trie))
        rows = [("", "path", "nodes passed", "class before", "class after")]
        for name, paths, trie in tries:
            for i in range(len(paths.lengths)):
                nodes = torch.nonzero(paths.ancestors[i]).flatten().tolist()
                tokens = [*(trie.tokens[node] for node in nodes[1:]), int(paths.last_tokens[i])]
                before = torch.nonzero(paths.masked[:, i] == 0).flatten().tolist()
                entry = (name if i == 0 else "", spell(tokens), " ".join(map(str, nodes)))
                rows.append((*entry, " ".join(map(str, before)), str(int(paths.class_after[i]))))
        title = "first labels apart" if apart else "first labels in the root trie"
        parts.append(f"{title}\n{table(rows)}")
    stands_in(compiled_policies, "\n\n".join(parts))


def test_shapes_of_attention(graph, prefill, monkeypatch):
    """Grouped queries are stacked and unstacked: a reader loses count of the axes."""
    rows = []

    def recorded(name):
        function = getattr(attention, name)

        def run(*arguments):
            result = function(*arguments)
            rows.append((name, str(tuple(result.shape))))
            return result

        monkeypatch.setattr(attention, name, run)

    for name in ("_grid", "_scores", "_mixed"):
        recorded(name)
    heads, key_heads, size = 4, 1, 8
    tokens = len(graph.tokens)
    query, key = (torch.zeros(1, count, tokens, size) for count in (heads, key_heads))
    graph.varlen.past = [[KeyValues(*torch.zeros(2, 2, key_heads, 3, size))]]
    output = graph.varlen.attend(0, query, key, key, 1.0, None, None)
    named = ("queries", "keys", "values", "scores", "mixed values")
    shapes = [(name, shape) for name, (_, shape) in zip(named, rows, strict=True)]
    stands_in(
        attention,
        table([("query, packed", str(tuple(query.shape))), *shapes, ("output, packed", str(tuple(output.shape)))]),
    )


def lines_of(nodes, indent=""):
    for node in nodes:
        if node.op_type == "If":
            yield f"{indent}{', '.join(node.output)} = if {node.input[0]}"
            for attribute in sorted(node.attribute, key=lambda one: one.name, reverse=True):  # then, else
                graph = attribute.g
                yield f"{indent}  {graph.name}: gives {', '.join(one.name for one in graph.output)}"
                yield from lines_of(graph.node, indent + "    ")
        else:
            yield f"{indent}{', '.join(node.output)} = {node.op_type}({', '.join(node.input)})"


def test_branches_of_a_graph():
    """What is put off, what stands for it, and which names it has, is three bookkeepings at once."""
    model = branching_model()
    before = "\n".join(lines_of(model.graph.node))
    depths = [Stage("any_0", {"y": "minus"}), Stage("any_1", {"y": "twice"})]
    branch(model, depths, lambda names: dict.fromkeys(names, TensorProto.FLOAT))
    stands_in(branches, f"{before}\n\nbecomes\n\n" + "\n".join(lines_of(model.graph.node)))
