"""int8 graphs of tiny random guards, through ONNX Runtime: close to fp32, whoever the neighbours are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_guard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_architectures import CASES

from verdictree.errors import UnsupportedGuard
from verdictree.releases.proofs import QuantizationQuality
from verdictree.runtime.graph_io import OUTPUTS, feeds
from verdictree.runtime.session import open_session
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.exporter import export_release
from verdictree_export.int8 import quality_gate
from verdictree_export.int8.deferred_dequantization import defer_dequantization
from verdictree_export.int8.passes import to_int8
from verdictree_export.int8.preparation import prepare
from verdictree_export.int8.quantize import most_sensitive, quantizable, quantize
from verdictree_export.int8.rotation import rotate
from verdictree_export.int8.rounding import channel_scales, round_to_nearest, round_with_compensation
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.linear_layers import linear_layers, read, write
from verdictree_export.onnx_file.passes import apply

pytestmark = pytest.mark.slow

conversation_ids = st.lists(st.integers(4, 300), min_size=1, max_size=12)


def export(folder, family, policies, path, exploration):
    """The graph's file as it is when it is quantized: not finished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_model, "finish", lambda _path: None)
        export_release(str(folder), family, policies, path, exploration=exploration, max_off_grammar=1.0)
    return path / "guard_lm/1/model.onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("c"), verdict_strength=2.0)
    path = tmp_path_factory.mktemp("models")
    return export(folder, "llama-guard-3", [tiny_guard.POLICY], path, Exploration(3, 0.0, 4))


@pytest.fixture(scope="module")
def prepared(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "model.onnx"
    return path, prepare(exported, path, calibration())


@pytest.fixture(scope="module")
def quantized(prepared):
    model = ir.load(prepared[0])
    layers = quantizable(model)
    apply(to_int8(prepared[1], (), most_sensitive), model)
    return model, layers


@pytest.fixture(scope="module")
def int8(quantized):
    return session(quantized[0])


def feed(batch, questions=1):
    return feeds([np.tile(ids, questions) for ids in batch], np.zeros((len(batch), questions)))


def calibration():
    rng = np.random.default_rng(0)
    return [feed([rng.integers(4, 300, size) for size in (5, 20, 40)]) for _ in range(4)]


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx_model.save(model.clone(), path)
        return open_session(path, options)


def run(session, batch):
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), feed(batch)), strict=True))


def head_log_probs(output):
    return output["label_logits"][:, 0] - output["log_normalizer"][:, :1]


def weights_size(model):
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if len(tensor.shape) == 2)


def operators(model, kind):
    return [node for node in model.graph if node.op_type == kind]


def quantized_weights(model):
    return {node.inputs[1] for node in operators(model, "MatMulIntegerToFloat")}


def test_preparing_keeps_the_function(exported, prepared):
    """A rotation that one reader or writer of the residual stream misses gives another model."""
    batch, turned = [[5, 9, 200], [17] * 9], ir.load(prepared[0])
    found, expected = (head_log_probs(run(session(model), batch)) for model in (turned, ir.load(exported)))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    gains = {node.inputs[1] for node in operators(turned, "SimplifiedLayerNormalization")}
    assert gains and all(np.all(read(gain) == 1) for gain in gains)


def test_quantized_is_close_to_floating_point(exported, int8):
    batch = [list(ids) for ids in np.random.default_rng(1).integers(4, 300, (16, 10))]
    a, b = head_log_probs(run(session(ir.load(exported)), batch)), head_log_probs(run(int8, batch))
    assert np.abs(np.exp(a) - np.exp(b)).max() < 0.03


def test_a_residual_term_is_closer(exported, prepared):
    """The second term takes the activations' rounding away; what is left is the weights'."""
    model, coarse = ir.load(prepared[0]), ir.load(prepared[0])
    quantize(model, prepared[1], with_residual=lambda _: True)
    quantize(coarse, prepared[1], with_residual=lambda _: False)
    batch = [list(ids) for ids in np.random.default_rng(1).integers(4, 300, (16, 10))]
    expected, finer = head_log_probs(run(session(ir.load(exported)), batch)), session(model)
    one, two = (np.square(head_log_probs(run(s, batch)) - expected).mean() for s in (session(coarse), finer))
    assert two < 0.7 * one


def test_scaling_late_keeps_the_function(prepared):
    """A scale that is left out, or comes twice, gives another token's magnitude to the down projection."""
    late, early = ir.load(prepared[0]), ir.load(prepared[0])
    for model in (late, early):
        quantize(model, prepared[1], with_residual=lambda _: False)
    passes = len(operators(late, "MatMulIntegerToFloat")) // len(quantized_weights(late))
    assert defer_dequantization(late) == passes * tiny_guard.SIZES["num_hidden_layers"]
    batch = [list(ids) for ids in np.random.default_rng(1).integers(4, 300, (16, 10))]
    expected, found = (head_log_probs(run(session(model), batch)) for model in (early, late))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_passes_share_one_weight(exported, quantized):
    """Three depths and the prefill pass would otherwise hold four copies of the model."""
    model, layers = quantized
    products, weights = operators(model, "MatMulIntegerToFloat"), quantized_weights(model)
    assert len(products) > 2 * len(weights) == 2 * (len(layers) - 1)  # all but the embedding
    assert "model/layers.1/mlp/down_proj" in layers
    assert not linear_layers(model)
    assert weights_size(model) < 0.5 * weights_size(ir.load(exported))


def test_kept_layers_stay_as_they_are(prepared):
    model = ir.load(prepared[0])
    layers = quantizable(model, keep=["lm_head"])
    assert "lm_head" not in layers and "lm_head" in quantizable(model)
    assert quantize(model, prepared[1], keep=["lm_head"])
    assert {node.name.split("/")[1].rstrip("_0123456789") for node in linear_layers(model)} == {"lm_head"}


@settings(max_examples=25, deadline=None)
@given(ids=conversation_ids, sizes=st.lists(st.integers(1, 90), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_no_number_depends_on_the_neighbours(int8, ids, sizes, seed):
    """With a scale for the batch, an attacker's text beside yours changes your verdict. Here not even the last bit."""
    rng = np.random.default_rng(seed)
    batch = [rng.integers(4, 300, size) for size in sizes]
    place = int(rng.integers(len(batch) + 1))
    found, alone = run(int8, [*batch[:place], ids, *batch[place:]]), run(int8, [ids])
    for name in OUTPUTS:
        np.testing.assert_array_equal(found[name][place], alone[name][0], err_msg=name)


def test_runs_with_no_path_live(quantized):
    """A search depth without paths has zero tokens: nothing to take a maximum of."""
    model = quantized[0].clone()
    write(model.graph.initializers["policies.log_epsilon"], np.array(0.0))  # only what is certain is followed
    found = run(session(model), [[5, 9], [20]])
    assert np.isfinite(found["label_logits"]).all()


@pytest.mark.parametrize(
    ("name", "rotated"),
    [
        ("qwen 2, query, key and value bias", True),
        ("granite, multipliers", False),
        ("gemma 2, soft-capped", False),
    ],
)
def test_architectures(name, rotated, tmp_path):
    """Norms or multipliers between a layer and the stream leave it as it is; the graph is quantized all the same."""
    case = CASES[name]
    folder = tiny_guard.write_checkpoint(tmp_path / "c", case.config, case.template, **case.options)
    path = export(folder, case.family, case.policies, tmp_path / "models", Exploration(case.max_labels, 0.0, 4))
    questions = max(len(one.categories) for one in case.policies) if case.family != "instruct" else 1
    expected, turned = session(ir.load(path)), ir.load(path)
    inputs = feed([[5, 9, 200], [17] * 9], questions)
    before = expected.run(["log_normalizer"], inputs)[0]
    assert bool(rotate(turned)) is rotated
    np.testing.assert_allclose(session(turned).run(["log_normalizer"], inputs)[0], before, rtol=1e-3)
    (tmp_path / "prepared").mkdir()
    statistics = prepare(path, tmp_path / "prepared/model.onnx", [inputs])
    model = ir.load(tmp_path / "prepared/model.onnx")
    assert quantize(model, statistics)
    # Random weights of this size make logits that rounding moves by a few percent of their spread.
    np.testing.assert_allclose(session(model).run(["log_normalizer"], inputs)[0], before, atol=1.0)


def test_compensation_lowers_the_error_of_the_output():
    rng = np.random.default_rng(0)
    inputs = (rng.standard_normal((500, 48)) @ rng.standard_normal((48, 48))).astype(np.float32)
    weight = rng.standard_normal((48, 20)).astype(np.float32)
    scales = channel_scales(weight)
    near = round_to_nearest(weight, scales)
    compensated = round_with_compensation(weight, scales, inputs.T @ inputs)
    errors = [np.square(inputs @ (weight - one * scales)).sum() for one in (near, compensated)]
    assert errors[1] < 0.5 * errors[0]


def verdict(p_unsafe, marginals=(0.1, 0.2)):
    scores = tuple(CategoryScore(code, code, p, 0.0, 0.0) for code, p in zip(("a", "b"), marginals, strict=True))
    return Verdict(1, "p", "user", p_unsafe, 1 - p_unsafe, scores, 0.0, 0.0, GreedyVerdict("safe", (), True), 1, 0)


def test_quality_gate_figures():
    reference = [verdict(0.5, (0.9, 0.1)), verdict(0.2, (0.3, 0.2))]
    changed = [verdict(0.4, (0.1, 0.1)), verdict(0.2, (0.3, 0.2))]
    found = quality_gate.measure(reference, changed, [["a"], []])
    assert (found.max_p_unsafe_difference, found.mean_p_unsafe_difference) == pytest.approx((0.1, 0.05))
    assert (found.reference_micro_auc, found.micro_auc) == (1.0, pytest.approx(0.5 / 3))
    assert not quality_gate.passes(found, 0.02)
    assert quality_gate.passes(quality_gate.measure(reference, reference), 0.0)


def test_refusal_names_the_layers_that_hurt():
    """Only "not faithful" would leave the operator nothing to do about it."""

    def figures(p99):
        return QuantizationQuality(200, p99, p99, p99, None, None)

    quality_gate.check(figures(0.019), {}, 0.02)
    groups = {"model/layers.3/mlp": lambda: figures(0.07), "lm_head": lambda: figures(0.001)}
    with pytest.raises(UnsupportedGuard, match=r"got 0.08 on 200 .* model/layers.3/mlp \(0.07\), lm_head \(0.001\)"):
        quality_gate.check(figures(0.08), groups, 0.02)
