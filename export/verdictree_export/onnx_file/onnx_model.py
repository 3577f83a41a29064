"""Write a guard's graph as an ONNX file.

Three files: `model.onnx` is the graph, `weights.bin` holds the guard's weights, and `policies.bin` all that its
policies decide. A release of other policies shares the weights' file.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from verdictree.releases.release import GRAPH_FILE, POLICIES_FILE, WEIGHTS_FILE
from verdictree.runtime.graph_io import OUTPUTS
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.onnx_file.branches import Stage, branch
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.half_precision import in_precision
from verdictree_export.onnx_file.passes import AFTER_TRACING, apply, drop_unused, optimize
from verdictree_export.onnx_file.tensor_names import (
    ANY_STAYING,
    POLICIES,
    all_left,
    any_live,
    cache_names,
    is_cache,
    without,
)
from verdictree_export.onnx_file.tracing import trace

_EXTERNAL_FROM = 1024  # bytes; smaller tensors stay in the graph's own file


def write(graph: GuardGraph, folder: Path) -> Path:
    """Export `graph` into `folder`, in standard operators of opset 18 and ONNX Runtime's own; return the graph's file.

    The folder must be new or empty.
    """
    path = folder / GRAPH_FILE
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        traced = Path(scratch) / "traced.onnx"
        trace(graph, traced)
        model = ir.load(traced)
        apply(AFTER_TRACING, model)
        ir.save(model, traced)
        del model
        optimize(traced, path, WEIGHTS_FILE)
    set_policies(path, graph.policies)
    return path


def save(model: ir.Model, path: Path) -> None:
    """Write a graph as the file `path`, its weights and what its policies decide into files beside it.

    One tensor after the other: at no time is the model in memory as a whole because of this.
    """
    tensors = list(model.graph.initializers.values())
    policies = [value for value in tensors if (value.name or "").startswith(POLICIES)]
    _put_beside(path, POLICIES_FILE, policies)
    _put_beside(path, WEIGHTS_FILE, [value for value in tensors if value not in policies])
    ir.save(model, path)


def _put_beside(path: Path, name: str, values: Sequence[ir.Value]) -> None:
    """Write the large ones of these initializers anew into the file of this name beside the graph `path`."""
    tensors = [(value, value.const_value) for value in values]
    large = [
        (value, tensor)
        for value, tensor in tensors
        if tensor is not None and (isinstance(tensor, ir.ExternalTensor) or tensor.nbytes >= _EXTERNAL_FROM)
    ]
    stored = ir.external_data.convert_tensors_to_external([tensor for _, tensor in large], path.parent, name)
    for (value, _), tensor in zip(large, stored, strict=True):
        value.const_value = tensor


def finish(path: Path) -> None:
    """Let the graph at `path` pass over what no request of a batch needs: the layers after an early exit that all have
    taken, and the depths of the search at which no path is live.

    The last step: what looks at layers by name does not look into branches.
    """
    model = onnx.load(path, load_external_data=False)
    made = {name for node in model.graph.node for name in node.output}
    stages = [Stage(ANY_STAYING, {name: all_left(name) for name in OUTPUTS})] if ANY_STAYING in made else []
    stages += [
        Stage(any_live(depth), {name: without(name, depth) for name in OUTPUTS})
        for depth in itertools.takewhile(lambda depth: any_live(depth) in made, itertools.count())
    ]
    if stages:
        # Prompts that are added later are made of the keys and values, also of those that stand behind an exit.
        caches = [name for name in made if is_cache(name)] if ANY_STAYING in made else []
        branch(model, stages, functools.partial(_element_types, path), caches)
    branched = ir.from_proto(model)
    drop_unused(branched)
    ir.save(branched, path)


def _element_types(path: Path, names: Iterable[str]) -> dict[str, int]:
    """What the named tensors of the graph at `path` hold, as ONNX counts types."""
    model = onnx.load(path, load_external_data=False)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    whole = path.with_name("inner_outputs.onnx")  # beside the weights
    onnx.save(model, whole)
    try:
        return GraphSession(whole).element_types()
    finally:
        whole.unlink()


def set_policies(path: Path, policies: CompiledPolicies, with_caches: bool = False) -> None:
    """Let the ONNX file `path` ask by these policies from now on; their file beside it is written anew.

    `with_caches` makes the prefill pass's keys and values outputs too.
    """
    model = ir.load(path)
    graph = model.graph
    values = {f"{POLICIES}{name}": value for name, value in policies.named_buffers()}
    replaced = [one for one in [*graph.inputs, *graph.initializers.values()] if one.name in values]
    new = []
    for old in sorted(replaced, key=lambda one: one.name or ""):  # an input after tracing, an initializer later
        if old.is_graph_input():
            graph.inputs.remove(old)
        else:
            del graph.initializers[old.name or ""]
        if old.uses():
            tensor = in_precision(values[old.name or ""].numpy(), old)
            new.append(ir.val(old.name, const_value=tensor))
            old.replace_all_uses_with(new[-1])
            graph.register_initializer(new[-1])
    _put_beside(path, POLICIES_FILE, new)
    kept = [one for one in graph.outputs if one.name in OUTPUTS]
    if with_caches:
        made = {value.name: value for node in graph for value in node.outputs}
        kept += [made[name] for name in cache_names(policies.prefix_cache.num_layers)]
    graph.outputs[:] = kept
    ir.save(model, path)
