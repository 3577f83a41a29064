"""Every pass of the lists, in its place there, on a whole graph: ONNX Runtime before and after, on the same input."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
from test_graph import END, GRAMMAR, ONE_ENDING, PROMPTS, encode, model  # noqa: F401

from verdictree.runtime.graph_io import OUTPUTS, feeds
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export import int8, onnx_file
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.guard_graph import GuardGraph
from verdictree_export.graph.prefix_cache import prefill_prefixes
from verdictree_export.int8.activations import calibrate
from verdictree_export.int8.passes import BEFORE_CALIBRATION, after_calibration, to_int8
from verdictree_export.int8.quantize import most_sensitive
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.half_precision import to_half
from verdictree_export.onnx_file.passes import AFTER_TRACING
from verdictree_export.onnx_file.tensor_names import POLICIES
from verdictree_export.onnx_file.tracing import trace

pytestmark = pytest.mark.slow

HALF = [partial(to_half, kind=ir.DataType.FLOAT16)]
INT8 = [*BEFORE_CALIBRATION, *after_calibration({}), *to_int8({}, (), most_sensitive)]
REQUESTS = feeds([[11, 12, 13, 14], [15], [16, 17, 18, 19, 21, 22]], [[0], [1], [0]])
TREE = compile_tree(GRAMMAR, ONE_ENDING, encode, [END])
# How far log-probabilities may move. The other passes change no bit: they take away what is computed for nothing.
TOLERANCES = {"fuse_rotary": 1e-4, "rotate": 1e-3, "smooth_gated": 1e-3, "defer_dequantization": 1e-3}


def name(one):
    return (one.func if isinstance(one, partial) else one).__name__


def numbers(path, **inputs):
    """All outputs of the graph's file."""
    return GraphSession(path).run({**REQUESTS, **inputs})


def applied(passes, model, folder, **inputs):  # noqa: F811
    """By name: how many changes each pass made, the outputs before it, and those after."""
    found = {}
    onnx_model.save(model, folder / "before.onnx")
    before = numbers(folder / "before.onnx", **inputs)
    for one in passes:
        count = one(model)
        (folder / name(one)).mkdir()
        onnx_model.save(model, folder / name(one) / "after.onnx")
        after = numbers(folder / name(one) / "after.onnx", **inputs)
        found[name(one)] = count, before, after
        before = after
    return found


@pytest.fixture(scope="module")
def graph(model):  # noqa: F811
    exploration = Exploration(max_labels=2, pruning_threshold=0.0, beam_width=16)
    return GuardGraph(model, CompiledPolicies(PROMPTS, TREE, exploration, prefill_prefixes(model, PROMPTS)))


@pytest.fixture(scope="module")
def steps(graph, tmp_path_factory):
    traced, written = tmp_path_factory.mktemp("traced"), tmp_path_factory.mktemp("written")
    trace(graph, traced / "traced.onnx")
    policies = {f"{POLICIES}{key}": value.numpy() for key, value in graph.policies.named_buffers()}
    loaded = ir.load(traced / "traced.onnx")
    policies = {value.name: policies[value.name] for value in loaded.graph.inputs if value.name in policies}
    after_tracing = applied(AFTER_TRACING, loaded, traced, **policies)

    path = onnx_model.write(graph, written)
    loaded = ir.load(path)
    (written / "half").mkdir()
    half = applied(HALF, ir.load(path), written / "half")
    (written / "int8").mkdir()
    prepared = applied(BEFORE_CALIBRATION, loaded, written / "int8")
    statistics = calibrate(written / "int8" / name(BEFORE_CALIBRATION[-1]) / "after.onnx", [REQUESTS])
    rest = [*after_calibration(statistics), *to_int8(statistics, (), lambda _: False)]
    return {**after_tracing, **half, **prepared, **applied(rest, loaded, written / "int8")}


@pytest.mark.parametrize("one", [*AFTER_TRACING, *HALF, *INT8], ids=name)
def test_a_pass_changes_the_graph_and_not_what_it_computes(steps, one):
    """A pass that finds nothing any more, since an exporter has changed, is as wrong as one that breaks a number."""
    count, before, after = steps[name(one)]
    assert type(count) is int and count > 0
    if name(one) in ("quantize", "to_half"):
        # Fewer bits move a random guard's logits a good deal, single ones most, and so the paths that are followed.
        # At the root trie they must still rise and fall together, which those of a wrong graph would not.
        for expected, got in zip(before[:2], after[:2], strict=True):
            roots = [np.ravel(output[:, : len(TREE.root_trie)]) for output in (expected, got)]
            assert np.corrcoef(*roots)[0, 1] > 0.95
        return
    for output, expected, got in zip(OUTPUTS[: len(before)], before, after, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCES.get(name(one), 0), err_msg=output)


def test_the_lists_are_complete():
    """A pass that is in no list is applied somewhere else, where nobody looks for it."""
    found = set()
    for room in (onnx_file, int8):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            for key, function in vars(importlib.import_module(module.name)).items():
                if inspect.isfunction(function) and function.__module__ == module.name and not key.startswith("_"):
                    first, *_ = [*inspect.signature(function).parameters.values(), None]
                    if first is not None and (first.name, first.annotation) == ("model", "ir.Model"):
                        returned = inspect.signature(function).return_annotation
                        found |= {key} if returned == "int" else set()
    assert found == {name(one) for one in [*AFTER_TRACING, *HALF, *INT8]}
