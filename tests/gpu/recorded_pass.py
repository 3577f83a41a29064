"""Run batches of a guard graph by ONNX Runtime's CUDA provider over the stub libraries; print what it asked of them.

Reads JSON from standard input: the graph's path, and batches with their size, their tokens a request, and the live
paths of each depth, in one beam slot. Writes one JSON document. `run` starts it as it must be started: the dynamic
linker finds the libraries, and `onnxruntime` is the one for CUDA.
"""

from __future__ import annotations

import collections
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WHEEL, LIBRARIES, REPORT = ROOT / ".gpu/wheel", ROOT / ".gpu/lib", ROOT / ".gpu/passes.md"
_OUTPUTS = ["label_logits", "log_normalizer", "top_logit", "expansions"]
_CUDA = "CUDAExecutionProvider"
_LAUNCH, _TO_HOST, _TO_DEVICE, _ON_DEVICE, _WAIT, _ALLOCATE = range(6)


class _Event(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("name", ctypes.c_char_p), ("bytes", ctypes.c_size_t))


@dataclass(frozen=True)
class Batch:
    """So many requests of so many tokens; at depth i `live[i]` paths, each of another request. Without: all safe."""

    requests: int
    tokens: int
    live: tuple[int, ...] = ()


@dataclass(frozen=True)
class RecordedPass:
    """What one run asked of the card.

    launches         kernels and library calls, `kernels` how often each
    blocking_points  times that the host waits for the card: copies to the host and waits without a launch in between
    cpu_nodes        names of the nodes that the CPU provider ran; num_nodes all nodes
    """

    launches: int
    kernels: dict[str, int]
    blocking_points: int
    copies_to_host: int
    copies_to_device: int
    cpu_nodes: list[str]
    num_nodes: int


def run(graph: Path, batches: Sequence[Batch]) -> list[RecordedPass]:
    """Run the batches; raises RuntimeError with what ONNX Runtime has said."""
    asked = {"graph": str(graph), "batches": [vars(batch) for batch in batches]}
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES), "PYTHONPATH": str(WHEEL)}
    command = [sys.executable, __file__]
    done = subprocess.run(command, input=json.dumps(asked), env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return [RecordedPass(**one) for one in json.loads(done.stdout)]


def _main() -> None:
    import numpy as np
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    stub = ctypes.CDLL(str(LIBRARIES / "libcudart.so.13"))
    asked = json.load(sys.stdin)
    found = []
    for batch in (Batch(**one) for one in asked["batches"]):
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
            session = onnxruntime.InferenceSession(asked["graph"], options, providers=[_CUDA])
            if _CUDA not in session.get_providers():
                raise RuntimeError(f"expected {_CUDA}, got {session.get_providers()}: a library is missing")
            if {one.type for one in session.get_outputs()} != {"tensor(float)", "tensor(int32)"}:
                raise RuntimeError("expected outputs in fp32, whatever the layers' precision")
            feeds = {
                "input_ids": np.ones(batch.requests * batch.tokens, np.int64),
                "row_ends": np.arange(1, batch.requests + 1, dtype=np.int32) * batch.tokens,
                "prefix_id": np.zeros((batch.requests, 1), np.int32),
            }
            for _ in range(2):  # the first one allocates
                stub.stub_reset()
                for answer in _sizes(batch):
                    stub.stub_answer(ctypes.c_long(answer))
                session.run(_OUTPUTS, feeds)
            events = _events(stub)
            profile = json.loads(Path(session.end_profiling()).read_text())
        found.append(_recorded(events, profile))
    json.dump(found, sys.stdout)


def _sizes(batch: Batch) -> list[int]:
    """The sizes that a run waits for: the longest conversation, then at each depth its live paths and used slots."""
    return [batch.tokens, *(size for paths in batch.live for size in (paths, 1))]


def _events(stub: ctypes.CDLL) -> list[_Event]:
    first = ctypes.POINTER(_Event)()
    stub.stub_events.restype = ctypes.c_size_t
    count = stub.stub_events(ctypes.byref(first))
    return first[:count]


def _recorded(events: list[_Event], profile: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = [event.kind for event in events]
    kernels = collections.Counter(event.name.decode() for event in events if event.kind == _LAUNCH)
    at_card = [kind for kind in kinds if kind in (_LAUNCH, _TO_HOST, _WAIT)]
    blocking = [kind for kind, before in zip(at_card, [_LAUNCH, *at_card], strict=False) if before == _LAUNCH != kind]
    nodes = [one for one in profile if one.get("cat") == "Node" and one["name"].endswith("_kernel_time")]
    last = nodes[len(nodes) // 2 :]
    on_cpu = [one["name"].removesuffix("_kernel_time") for one in last if one["args"]["provider"].startswith("CPU")]
    return {
        "launches": sum(kernels.values()),
        "kernels": kernels,
        "blocking_points": len(blocking),
        "copies_to_host": kinds.count(_TO_HOST),
        "copies_to_device": kinds.count(_TO_DEVICE),
        "cpu_nodes": on_cpu,
        "num_nodes": len(last),
    }


if __name__ == "__main__":
    _main()
