"""Answers a batch of requests with one run of an ONNX graph, as NVIDIA's C++ onnxruntime backend does.

A ragged input reaches the graph as one 1-D tensor, the requests' elements one after another; batch inputs tell the
graph where each begins. Any other input is concatenated along the batch dimension, and outputs are split along it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from verdictree.errors import GpuUnavailable
from verdictree.runtime.session import open_session
from verdictree_serving.errors import InferenceFailed, InvalidInput, InvalidModelConfig
from verdictree_serving.onnxruntime_backend.config import OnnxModelConfig
from verdictree_serving.onnxruntime_backend.graph_limits import GraphLimits
from verdictree_serving.onnxruntime_backend.options import (
    concurrent_runs,
    execution_providers,
    run_options,
    session_options,
)

Tensors = Mapping[str, NDArray[Any]]
_PATH = re.compile(r"(?<!\S)/\S+")  # of ONNX Runtime's sources, of this machine: nothing to tell a stranger


def pack(config: OnnxModelConfig, requests: Sequence[Tensors]) -> dict[str, NDArray[Any]]:
    """The graph's inputs for `requests`, each a mapping from input name to an array [rows, ...].

    Raises ValueError if two requests cannot be concatenated.
    """
    feed: dict[str, NDArray[Any]] = {}
    for tensor in config.inputs:
        parts = [request[tensor.name] for request in requests]
        feed[tensor.name] = np.concatenate([part.ravel() for part in parts] if tensor.ragged else parts)
    for batch_input in config.batch_inputs:
        values = batch_input.values([request[batch_input.source].size for request in requests])
        feed.update(dict.fromkeys(batch_input.targets, values))
    return feed


def unpack(outputs: Tensors, rows: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
    """Each request's share of `outputs` [sum of rows, ...]: `rows[i]` rows for request i.

    Raises `InferenceFailed` if an output has another number of rows.
    """
    for name, output in outputs.items():
        if output.ndim == 0 or len(output) != sum(rows):
            raise InferenceFailed(f"output {name} has the shape {output.shape}; expected {sum(rows)} rows")
    borders = np.cumsum(rows)[:-1]
    shares = {name: np.split(output, borders) for name, output in outputs.items()}
    return [{name: share[index] for name, share in shares.items()} for index in range(len(rows))]


class OnnxModel:
    """An ONNX model as its Triton configuration describes it.

    `config` is the JSON form of `config.pbtxt`, `version_directory` holds the model file and `gpu` is a device
    id, or None for the CPU. `concurrent_runs` is how many requests to run at once, each alone; None to run a batch at
    a time. Raises `InvalidModelConfig` if configuration and graph do not fit, or are not supported.
    """

    def __init__(self, config: Mapping[str, Any], version_directory: Path, gpu: int | None = None) -> None:
        self._config = OnnxModelConfig.parse(config)
        self.concurrent_runs = concurrent_runs(config, gpu)
        self._run_options = run_options(config)
        path = version_directory / (config.get("default_model_filename") or "model.onnx")
        self._session = _open_session(path, session_options(config), execution_providers(config, gpu))
        self._config.check(self._session.get_inputs(), self._session.get_outputs())
        self._limits = GraphLimits.load(version_directory)
        self._output_names = [tensor.name for tensor in self._config.outputs]

    def windows(self, request: Tensors) -> list[Tensors]:
        """The windows of a request of a release, as requests of their own; else, or where it has a fault, itself."""
        if self._limits is None or self._limits.fault(request):
            return [request]
        return [*self._limits.windows(request)]

    @property
    def requests_at_once(self) -> int:
        """How many requests, or windows of one, a run computes."""
        return max(1, self._config.max_batch_size) if self.concurrent_runs is None else 1

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, NDArray[Any]] | InferenceFailed]:
        """Return, for each request in order, its outputs [rows, ...] or why it has none."""
        refused = {index: fault for index, request in enumerate(requests) if (fault := self._fault(request))}
        answered = iter(self._answers([request for index, request in enumerate(requests) if index not in refused]))
        return [InvalidInput(refused[i]) if i in refused else next(answered) for i in range(len(requests))]

    def _fault(self, request: Tensors) -> str | None:
        return None if self._limits is None else self._limits.fault(request)

    def _answers(self, requests: Sequence[Tensors]) -> list[dict[str, NDArray[Any]] | InferenceFailed]:
        """Those that fit together are run together."""
        groups: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self._alike(request) if self._config.max_batch_size else index, []).append(index)
        answers: dict[int, dict[str, NDArray[Any]] | InferenceFailed] = {}
        for group in groups.values():
            answers.update(zip(group, self._run_together([requests[index] for index in group]), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _alike(self, request: Tensors) -> tuple[tuple[int, ...], ...]:
        return tuple(request[tensor.name].shape[1:] for tensor in self._config.inputs if not tensor.ragged)

    def _run_together(self, requests: Sequence[Tensors]) -> list[dict[str, NDArray[Any]] | InferenceFailed]:
        try:
            return list(self._infer(requests))
        except Exception as exc:  # ONNX Runtime's errors have no common base
            if len(requests) == 1:
                return [InferenceFailed(_one_line(exc))]
        # One request's fault is not its neighbours': alone, each gets its own answer.
        return [result for request in requests for result in self._run_together([request])]

    def _infer(self, requests: Sequence[Tensors]) -> list[dict[str, NDArray[Any]]]:
        values = self._session.run(self._output_names, pack(self._config, requests), self._run_options)
        outputs = dict(zip(self._output_names, values, strict=True))
        if not self._config.max_batch_size:
            return [outputs]
        return unpack(outputs, [len(request[self._config.inputs[0].name]) for request in requests])


def _open_session(
    path: Path, options: onnxruntime.SessionOptions, providers: list[tuple[str, dict[str, str]]]
) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise InvalidModelConfig(f"expected an ONNX model at {path}: no such file")
    try:
        return open_session(path, options, providers)
    except GpuUnavailable as exc:
        raise InvalidModelConfig(f"{path.name} is KIND_GPU: {exc}; or set KIND_CPU") from exc
    except Exception as exc:  # ONNX Runtime's errors have no common base
        hint = "; a bf16 release runs on a GPU only: set KIND_GPU" if "NOT_IMPLEMENTED" in str(exc) else ""
        raise InvalidModelConfig(f"ONNX Runtime cannot load {path.name}: {_one_line(exc)}{hint}") from exc


def _one_line(error: Exception) -> str:
    return " ".join(_PATH.sub("…", str(error)).split()) or type(error).__name__
