"""From the `parameters` and `optimization` of a `config.pbtxt` to ONNX Runtime's options.

The keys are those of NVIDIA's C++ onnxruntime backend, `concurrent_runs`, and the limits of `waiting_line.py`. That
backend ignores a key that it does not know; here that is an error, so that a misspelt option does not pass unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime

from verdictree.runtime import cuda
from verdictree_serving.errors import InvalidModelConfig
from verdictree_serving.waiting_line import SECONDS, SIZE

_BOOLEANS = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
_EXECUTION_MODES = {
    "0": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    "1": onnxruntime.ExecutionMode.ORT_PARALLEL,
}
_GRAPH_LEVELS = {
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def _count(value: str) -> int:
    if not value.isdecimal():
        raise ValueError(value)
    return int(value)


def _boolean(value: str) -> bool:
    return _BOOLEANS[value.lower()]


# key -> (attribute of SessionOptions, value from text)
_SESSION_ATTRIBUTES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "intra_op_thread_count": ("intra_op_num_threads", _count),  # 0 = all cores
    "inter_op_thread_count": ("inter_op_num_threads", _count),
    "execution_mode": ("execution_mode", _EXECUTION_MODES.__getitem__),
    "enable_mem_arena": ("enable_cpu_mem_arena", _boolean),
    "enable_mem_pattern": ("enable_mem_pattern", _boolean),
}
# The C++ backend passes only the first on, and that of release 24.10, the embedded server's age, not even that.
# The others change how threads wait, never a result.
_SESSION_ENTRIES = (
    "session.use_device_allocator_for_initializers",
    "session.intra_op.allow_spinning",
    "session.intra_op.spin_duration_us",
    "session.inter_op.allow_spinning",
)
_RUN_ENTRIES = ("memory.enable_memory_arena_shrinkage",)
_CONCURRENT_RUNS = "concurrent_runs"
# key -> option of the CUDA execution provider, value from text
_CUDA_OPTIONS: dict[str, Callable[[str], str]] = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}.__getitem__,
    "gpu_mem_limit": str,
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}.__getitem__,
    "do_copy_in_default_stream": str,
}
_KNOWN = (*_SESSION_ATTRIBUTES, *_SESSION_ENTRIES, *_RUN_ENTRIES, _CONCURRENT_RUNS, SIZE, SECONDS, *_CUDA_OPTIONS)


def read_parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The `parameters` of Triton's JSON configuration; raise `InvalidModelConfig` for an unknown key."""
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    unknown = sorted(parameters.keys() - set(_KNOWN))
    if unknown:
        raise InvalidModelConfig(f"unknown parameter {', '.join(unknown)}; known are {', '.join(_KNOWN)}")
    return parameters


def session_options(config: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    """The options of a session; raise `InvalidModelConfig` for a value that does not fit its key."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _graph_level(config.get("optimization", {}))
    parameters = read_parameters(config)
    if _CONCURRENT_RUNS in parameters:
        if parameters.get("intra_op_thread_count", "1") != "1":
            raise InvalidModelConfig(f"{_CONCURRENT_RUNS} are of one thread each; remove intra_op_thread_count")
        options.intra_op_num_threads = 1
    for key, value in parameters.items():
        if key in _SESSION_ATTRIBUTES:
            attribute, parse = _SESSION_ATTRIBUTES[key]
            setattr(options, attribute, _parse(key, value, parse))
        elif key in _SESSION_ENTRIES:
            options.add_session_config_entry(key, value)
    return options


def concurrent_runs(config: Mapping[str, Any], gpu: int | None) -> int | None:
    """How many requests to run at once, each alone on one thread; None where a batch is one run on all threads.

    The parameter `concurrent_runs` says how many, 0 for one a core. A GPU wants whole batches: there it is ignored.
    Raises `InvalidModelConfig` for what is not a number.
    """
    value = read_parameters(config).get(_CONCURRENT_RUNS)
    if value is None or gpu is not None:
        return None
    return _parse(_CONCURRENT_RUNS, value, _count) or len(os.sched_getaffinity(0))


def run_options(config: Mapping[str, Any]) -> onnxruntime.RunOptions:
    """The options of every run."""
    options = onnxruntime.RunOptions()
    for key, value in read_parameters(config).items():
        if key in _RUN_ENTRIES:
            options.add_run_config_entry(key, value)
    return options


def execution_providers(config: Mapping[str, Any], gpu: int | None) -> list[tuple[str, dict[str, str]]]:
    """Return ONNX Runtime's providers for the CPU, or for a GPU by its device id, best first.

    Raises `InvalidModelConfig` if a GPU is wanted and this ONNX Runtime has none.
    """
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if gpu is None:
        return [cpu]
    if cuda.PROVIDER not in onnxruntime.get_available_providers():
        raise InvalidModelConfig(
            "the instance is KIND_GPU, but this ONNX Runtime has no CUDAExecutionProvider;"
            f" set instance_group {{ kind: KIND_CPU }}, or install the one for CUDA in its place: {cuda.INSTALL}"
        )
    parameters = read_parameters(config)
    own = {key: _parse(key, parameters[key], parse) for key, parse in _CUDA_OPTIONS.items() if key in parameters}
    return [(cuda.PROVIDER, {"device_id": str(gpu), **own}), cpu]


def _graph_level(optimization: Mapping[str, Any]) -> Any:
    if optimization.get("execution_accelerators"):
        raise InvalidModelConfig(
            "optimization.execution_accelerators is not supported by the Python onnxruntime backend; remove it"
        )
    level = int(optimization.get("graph", {}).get("level", 0))
    if level not in _GRAPH_LEVELS:
        raise InvalidModelConfig(f"optimization.graph.level is {level}; expected one of {sorted(_GRAPH_LEVELS)}")
    return _GRAPH_LEVELS[level]


def _parse(key: str, value: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(value)
    except (KeyError, ValueError) as exc:
        raise InvalidModelConfig(f"parameter {key} has the value {value!r}, which is none of its values") from exc
