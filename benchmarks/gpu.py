"""fp16 releases under CUDA: requests/s, and the fraction of the card's measured matrix-product ceiling.

Not run yet: no GPU was at hand when this was written; the tests run it on a CPU. Needs a CUDA card, `pip install
'verdictree[gpu]'` and, for the largest shape, 140 GB of memory and 100 GB of disk.

    python -m benchmarks.gpu smollm2-135m llama-guard-3-1b llama-guard-3-8b

SmolLM2-135M is the embedded checkpoint; the other two are random weights in exactly the shapes of Llama-Guard-3-1B and
-8B with SmolLM2's tokenizer, which is as good for speed: their verdicts are all equally unlikely, so no label path is
expanded, as for safe traffic. Conversations of 35 tokens, the Llama-Guard-3-sized prompt. First comes the ceiling: the
best rate of fp16 products at the model's shapes, in ONNX Runtime on the same card. What the card answers is compared
with what the CPU does: `difference` is the largest of any label's probability at any node of the root trie. The last
line is one JSON document.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from verdictree.errors import GpuUnavailable
from verdictree.policy import Policy
from verdictree.releases.release import Release
from verdictree.runtime import cuda
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import TokenizedConversation
from verdictree_export.checkpoints.source import EMBEDDED
from verdictree_export.exporter import export_release
from verdictree_export.prompts.checkpoint import load_weightless

_POLICY = Path(__file__).with_name("policies") / "llama-guard-3-sized.yaml"
_CPU = "CPUExecutionProvider"
_TOKENS = (100, 300)  # which every tokenizer has
_CONVERSATION_TOKENS = 35
_RUNS = 20


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(SHAPES)))
def main(names: tuple[str, ...]) -> None:
    """Measure fp16 releases of the named shapes on the first CUDA card."""
    try:
        cuda.require_cuda()
    except GpuUnavailable as exc:
        raise click.ClickException(str(exc)) from exc
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            source, changes = EMBEDDED, SHAPES[name]
            if changes is not None:
                folder = Path(scratch) / f"{name}-checkpoint"
                source = str(random_checkpoint.write(folder, EMBEDDED, torch.float16, **changes))
            for run in measure(source, Path(scratch) / name):
                runs.append({"model": name, **run})
                click.echo(json.dumps(runs[-1]), err=True)
    click.echo(json.dumps({"card": _card(), "onnxruntime": onnxruntime.__version__, "runs": runs}))


def _card() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown card"


def measure(
    source: str,
    repository: Path,
    family: str = "instruct",
    provider: str = cuda.PROVIDER,
    batches: Sequence[int] = (1, 8, 32, 128),
    ceiling_rows: Sequence[int] = (2048, 8192),
) -> Iterator[dict[str, Any]]:
    """Export a checkpoint in fp16 and run it batch by batch: rates, and the largest difference from the CPU."""
    shape = model_shape(load_weightless(source).model.config)
    ceiling = max(_ceiling(shape, rows, provider) for rows in ceiling_rows)
    click.echo(f"ceiling: {ceiling / 1e12:.4g} T operations/s", err=True)
    policies = [Policy.read(_POLICY)]
    release = export_release(source, family, policies, repository, precision="fp16", max_off_grammar=1.0)
    guard, on_cpu = (LocalGuard.load(repository, release.number, providers=(one,)) for one in (provider, _CPU))
    for size in batches:
        batch = _batch(size)
        outputs = guard.infer(batch)
        cost_of_batch = cost.of_batch(guard.release, size * _CONVERSATION_TOKENS, outputs[-1])
        seconds = _median_seconds(functools.partial(guard.infer, batch))
        yield {
            "batch": size,
            "requests_per_s": size / seconds,
            "ms": 1000 * seconds,
            "ceiling_fraction": cost_of_batch.operations(shape) / seconds / ceiling,
            "ceiling_tops": ceiling / 1e12,
            "difference": _difference(guard.release, outputs, on_cpu.infer(batch)),
        }


def _difference(release: Release, outputs: Sequence[Any], expected: Sequence[Any]) -> float:
    nodes = len(release.tree.root_trie)
    each = [np.exp(logits - normalizer[..., None])[:, :nodes] for logits, normalizer, *_ in (outputs, expected)]
    return float(np.abs(each[0] - each[1]).max())


def _batch(size: int) -> list[TokenizedConversation]:
    """So many conversations of random tokens."""
    random = np.random.default_rng(size)
    ids = random.integers(*_TOKENS, (size, _CONVERSATION_TOKENS), dtype=np.int64)
    return [TokenizedConversation(row, (0,), len(row), 0) for row in ids]


def _ceiling(shape: ModelShape, rows: int, provider: str) -> float:
    """Operations per second of the blocks' fp16 products with so many rows; everything stays on the card."""
    seconds = sum(layer.count * _product_seconds(layer, rows, provider) for layer in shape.layers)
    return 2 * rows * shape.multiplications_per_token / seconds


def _product_seconds(layer: LinearShape, rows: int, provider: str) -> float:
    weights = np.random.default_rng(0).normal(size=(layer.inputs, layer.outputs)).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["rows", layer.inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["rows", layer.outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[provider], enable_fallback=0)
    binding, device = session.io_binding(), "cuda" if provider == cuda.PROVIDER else "cpu"
    x = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((rows, layer.inputs), np.float16), device, 0)
    binding.bind_ortvalue_input("x", x)
    binding.bind_output("y", device, 0)
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
