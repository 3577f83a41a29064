"""Prompts' prefixes as an exported graph computes them itself, without the checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from verdictree.releases.prompt import Prompt
from verdictree.releases.release import GRAPH_FILE, WEIGHTS_FILE
from verdictree.runtime.graph_io import OUTPUTS, feeds
from verdictree.verdict_tree.exploration import Exploration, unpack
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.exit_probe import ExitProbe
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_session import Array, GraphSession
from verdictree_export.onnx_file.tensor_names import POLICIES, cache_names

_NO_PATHS = 1.0  # a path is expanded from this probability on


@dataclass(frozen=True)
class Prefill:
    """A prompt's prefix after one run of the graph.

    key_values  layer by layer, each (1, key-value heads, tokens, head size)
    log_probs   (nodes, vocabulary) at the root of the verdict tree, after an example conversation
    """

    key_values: list[KeyValues]
    log_probs: Array


def stored(graph: Path, prompts: Sequence[Prompt]) -> list[list[KeyValues]]:
    """The prefixes' keys and values as they lie beside the graph; `prompts` are those that it was written with."""
    tensors = {one.name: one for one in onnx.load(graph, load_external_data=False).graph.initializer}

    def read(name: str) -> torch.Tensor:
        # In fp32 whatever the graph's precision, which is what its caches are written in again.
        return torch.from_numpy(_values(tensors[name], graph.parent).astype(np.float32))

    layers = sum(name.startswith(f"{POLICIES}bank.keys_") for name in tensors)
    pairs = [(read(f"{POLICIES}bank.keys_{i}"), read(f"{POLICIES}bank.values_{i}")) for i in range(layers)]
    return [
        [KeyValues(*(part[i : i + 1, :, : len(prompt.prefix_ids)] for part in pair)) for pair in pairs]
        for i, prompt in enumerate(prompts)
    ]


def stored_probe(graph: Path) -> ExitProbe | None:
    """The early exit's probe as it lies beside the graph; None where the graph has no exit."""
    tensors = {one.name: one for one in onnx.load(graph, load_external_data=False).graph.initializer}
    names = [f"{POLICIES}exit.{name}" for name in ("weight", "offset", "threshold")]
    if not tensors.keys() >= set(names):
        return None
    return ExitProbe(*(torch.from_numpy(_values(tensors[name], graph.parent).copy()) for name in names))


def _values(tensor: onnx.TensorProto, folder: Path) -> Array:
    if not uses_external_data(tensor):
        return onnx.numpy_helper.to_array(tensor)
    # Not by onnx or onnx-ir: they refuse a file with several hard links, as releases share them.
    place, dtype = ExternalDataInfo(tensor), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = int(np.prod(tensor.dims, dtype=np.int64))
    return np.fromfile(folder / place.location, dtype, count, offset=place.offset or 0).reshape(tuple(tensor.dims))


def prefill_by_graph(
    graph: Path, asked: Sequence[tuple[Prompt, Tokens]], tree: VerdictTree, exploration: Exploration, workplace: Path
) -> list[Prefill]:
    """Run prefix, conversation and suffix of each prompt as one conversation that no cache comes before.

    `asked` are the prompts, each with its example conversation. `workplace` is a folder on the graph's file system, but
    not the graph's own: Triton takes a folder that has changed for a release that has.
    """
    bare = [msgspec.structs.replace(prompt, prefix_ids=()) for prompt, _ in asked]
    quiet = msgspec.structs.replace(exploration, pruning_threshold=_NO_PATHS)
    probe = stored_probe(graph)
    blank = None if probe is None else ExitProbe.blank(len(bare), probe.size)
    policies = CompiledPolicies(bare, tree, quiet, stored(graph, bare[:1]) * len(bare), blank)
    start = policies.prefix_cache.suffix_and_root_width  # the conversation stands after suffix and root trie
    with tempfile.TemporaryDirectory(dir=workplace) as scratch:
        copy = Path(scratch) / GRAPH_FILE
        shutil.copy(graph, copy)
        copy.with_name(WEIGHTS_FILE).hardlink_to(graph.with_name(WEIGHTS_FILE))
        onnx_model.set_policies(copy, policies, with_caches=True)
        session = GraphSession(copy, outputs=[*OUTPUTS, *cache_names(policies.prefix_cache.num_layers)])
        return [
            _prefilled(
                session.run(feeds([(*prompt.prefix_ids, *conversation)], [[number]])),
                slice(start, start + len(prompt.prefix_ids)),
                tree,
                exploration,
            )
            for number, (prompt, conversation) in enumerate(asked)
        ]


def _prefilled(outputs: Sequence[Array], prefix: slice, tree: VerdictTree, exploration: Exploration) -> Prefill:
    (explored,) = unpack(tree, exploration, *outputs[: len(OUTPUTS)])
    kept = [torch.from_numpy(part[:, :, prefix]) for part in outputs[len(OUTPUTS) :]]
    pairs = zip(kept[::2], kept[1::2], strict=True)
    return Prefill([KeyValues(keys, values) for keys, values in pairs], explored.root.log_probs)
