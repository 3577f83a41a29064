"""Rotary embeddings of real modelling code become one operator that computes the same."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from verdictree_export.onnx_file.passes import drop_unused
from verdictree_export.onnx_file.rotary import fuse_rotary

HEADS, SIZE = 3, 8


class Rotated(nn.Module):
    """Queries and keys rotated as `rotate` does it."""

    def __init__(self, rotate):
        super().__init__()
        self.rotate = rotate

    def forward(self, query: Tensor, key: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([angles, angles], dim=-1).unsqueeze(0)
        return self.rotate(query, key, both.cos(), both.sin())


def interleaved(query, key, cos, sin):
    """Pairs of neighbours are turned, not pairs across the halves."""

    def turn(x):
        pairs = x.reshape(*x.shape[:-1], SIZE // 2, 2)
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).reshape(x.shape)
        return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1)

    return turn(query), turn(key)


@pytest.fixture
def traced(tmp_path):
    def trace(rotate):
        path = tmp_path / "traced.onnx"
        inputs = ["query", "key", "angles"]
        axes = {"query": {2: "tokens"}, "key": {2: "tokens"}, "angles": {0: "tokens"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Rotated(rotate),
                tuple(map(torch.from_numpy, feed(5).values())),
                path,
                input_names=inputs,
                output_names=["query_out", "key_out"],
                dynamic_axes=axes,
                opset_version=18,
                dynamo=False,
            )
        return ir.load(path)

    return trace


def feed(tokens):
    rng = np.random.default_rng(tokens)
    shapes = {"query": (1, HEADS, tokens, SIZE), "key": (1, 1, tokens, SIZE), "angles": (tokens, SIZE // 2)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(model, tokens):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed(tokens))


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_real_modelling_code_is_fused_and_computes_the_same(traced, tokens):
    model = traced(apply_rotary_pos_emb)
    before = run(model, tokens)
    assert fuse_rotary(model) == 2
    drop_unused(model)
    kinds = Counter(node.op_type for node in model.graph)
    assert kinds["RotaryEmbedding"] == kinds["Split"] == 2  # of queries and keys; of cos and sin, which they share
    assert "Neg" not in kinds
    for expected, got in zip(before, run(model, tokens), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_interleaved_pairs_are_left_as_they_are(traced):
    model = traced(interleaved)
    nodes = len(model.graph)
    assert fuse_rotary(model) == 0
    assert len(model.graph) == nodes
