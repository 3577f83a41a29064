"""fp16 releases under CUDA: requests/s, and the fraction of the card's measured matrix-product ceiling.

Not run yet: no GPU was at hand when this was written. Needs a CUDA card, `pip install 'verdictree[gpu]'` and,
for the largest shape, 100 GB of memory and 60 GB of disk.

    python -m benchmarks.gpu smollm2-135m llama-guard-3-1b llama-guard-3-8b

SmolLM2-135M is the embedded checkpoint; the other two are random weights in exactly the shapes of Llama-Guard-3-1B and
-8B with SmolLM2's tokenizer, which is as good for speed: their verdicts are all equally unlikely, so no label path is
expanded, as for safe traffic. Conversations of 35 tokens, the Llama-Guard-3-sized prompt. The ceiling is the best rate
of fp16 products at the model's shapes, in ONNX Runtime on the same card. The last line is one JSON document.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks import cost, random_checkpoint
from benchmarks.cost import LinearShape, ModelShape, model_shape
from benchmarks.shapes import SHAPES
from verdictree.policy import Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import TokenizedConversation
from verdictree_export.checkpoints.source import EMBEDDED
from verdictree_export.exporter import export_release
from verdictree_export.prompts.checkpoint import load_weightless

_POLICY = Path(__file__).with_name("policies") / "llama-guard-3-sized.yaml"
_CUDA = "CUDAExecutionProvider"
_BATCHES = (1, 8, 32, 128)
_CEILING_ROWS = (2048, 8192)
_CONVERSATION_TOKENS = 35
_RUNS = 20


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(SHAPES)))
def main(names: tuple[str, ...]) -> None:
    """Measure fp16 releases of the named shapes on the first CUDA card."""
    if _CUDA not in onnxruntime.get_available_providers():
        raise click.ClickException(
            "expected ONNX Runtime with CUDA, got one without; fix: pip uninstall -y onnxruntime onnxruntime-gpu && "
            "pip install 'verdictree[gpu]'"
        )
    card = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "unknown card"
    runs = []
    for name in names:
        for run in _measure(name):
            runs.append(run)
            click.echo(json.dumps(run), err=True)
    click.echo(json.dumps({"card": card, "onnxruntime": onnxruntime.__version__, "runs": runs}))


def _measure(name: str) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        source, changes = EMBEDDED, SHAPES[name]
        if changes is not None:
            source = str(random_checkpoint.write(Path(scratch) / "checkpoint", EMBEDDED, torch.float16, **changes))
        shape, repository = model_shape(load_weightless(source).model.config), Path(scratch) / "repository"
        release = export_release(
            source, "instruct", [Policy.read(_POLICY)], repository, precision="fp16", max_off_grammar=1.0
        )
        guard = LocalGuard.load(repository, release.number, providers=(_CUDA,))
        ceiling = max(_ceiling(shape, rows) for rows in _CEILING_ROWS)
        for batch in _BATCHES:
            seconds, operations = _batch(guard, shape, batch)
            yield {
                "model": name,
                "batch": batch,
                "requests_per_s": batch / seconds,
                "ms": 1000 * seconds,
                "ceiling_fraction": operations / seconds / ceiling,
                "ceiling_tops": ceiling / 1e12,
            }


def _batch(guard: LocalGuard, shape: ModelShape, size: int) -> tuple[float, int]:
    """Median seconds and linear-layer operations of one batch."""
    random = np.random.default_rng(size)
    ids = random.integers(1000, 40000, (size, _CONVERSATION_TOKENS), dtype=np.int64)
    batch = [TokenizedConversation(row, (0,), len(row), 0) for row in ids]
    *_, expansions = guard.infer(batch)
    total = cost.of_batch(guard.release, size * _CONVERSATION_TOKENS, expansions)
    return _median_seconds(lambda: guard.infer(batch)), total.operations(shape)


def _ceiling(shape: ModelShape, rows: int) -> float:
    """Operations per second of the blocks' fp16 products with so many rows; everything stays on the card."""
    seconds = sum(layer.count * _product_seconds(layer, rows) for layer in shape.layers)
    return 2 * rows * shape.multiplications_per_token / seconds


def _product_seconds(layer: LinearShape, rows: int) -> float:
    weights = np.random.default_rng(0).normal(size=(layer.inputs, layer.outputs)).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["rows", layer.inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["rows", layer.outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[_CUDA])
    binding = session.io_binding()
    x = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((rows, layer.inputs), np.float16), "cuda", 0)
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", "cuda", 0)
    return _median_seconds(lambda: (session.run_with_iobinding(binding), binding.synchronize_outputs()))


def _median_seconds(call: Callable[[], object]) -> float:
    seconds = [_timed(call) for _ in range(_RUNS + 3)][3:]  # the first ones warm up
    return statistics.median(seconds)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
