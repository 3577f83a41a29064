"""The Python onnxruntime backend without a server: packing, unpacking, configuration, faults."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree_serving.errors import InferenceFailed, InvalidModelConfig
from verdictree_serving.onnxruntime_backend.backend import OnnxModel, pack, unpack
from verdictree_serving.onnxruntime_backend.config import BatchInput, OnnxModelConfig, TensorConfig
from verdictree_serving.onnxruntime_backend.options import concurrent_runs, session_options

RAGGED_SUM: dict[str, Any] = {
    "max_batch_size": 8,
    "input": [{"name": "ids", "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True}],
    "output": [
        {"name": "total", "data_type": "TYPE_INT64", "dims": [1]},
        {"name": "batch_size", "data_type": "TYPE_INT64", "dims": [1]},
    ],
    "batch_input": [
        {
            "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
            "data_type": "TYPE_INT32",
            "target_name": ["offsets"],
            "source_input": ["ids"],
        }
    ],
    "parameters": {"intra_op_thread_count": {"string_value": "1"}},
}
DOUBLE: dict[str, Any] = {
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}],
}


def changed(config: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    result = copy.deepcopy(config)
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return result


@pytest.fixture(scope="module")
def ragged_sum(ragged_version: Path) -> OnnxModel:
    return OnnxModel(RAGGED_SUM, ragged_version)


@given(st.lists(st.lists(st.integers(0, 255), max_size=20), min_size=1, max_size=8))
def test_each_request_gets_its_own_sum(ragged_sum: OnnxModel, texts: list[list[int]]) -> None:
    """Offsets off by one, or outputs handed out in another order, give a request its neighbour's answer."""
    results = ragged_sum.run([{"ids": np.array([text], np.int64)} for text in texts])
    assert [(result["total"].tolist(), result["total"].shape) for result in results] == [
        ([[sum(text)]], (1, 1)) for text in texts
    ]
    assert {result["batch_size"].item() for result in results} == {len(texts)}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.data())
def test_pack_and_unpack_keep_requests_apart(rows: list[int], data: st.DataObject) -> None:
    """A request with several rows shifts the rows of all later requests."""
    config = OnnxModelConfig(
        max_batch_size=16,
        inputs=(TensorConfig("x", "TYPE_INT64", (2,)), TensorConfig("ids", "TYPE_INT64", (-1,), ragged=True)),
        outputs=(),
        batch_inputs=(BatchInput("BATCH_ELEMENT_COUNT", "TYPE_INT32", "ids", ("counts", "same_counts")),),
    )
    lengths = [data.draw(st.integers(0, 4)) for _ in rows]
    requests = [
        {"x": np.full((n, 2), index), "ids": np.full((n, length), index)}
        for index, (n, length) in enumerate(zip(rows, lengths, strict=True))
    ]
    feed = pack(config, requests)
    assert feed["counts"].tolist() == [n * length for n, length in zip(rows, lengths, strict=True)]
    assert feed["same_counts"] is feed["counts"]
    assert feed["ids"].tolist() == np.repeat(np.arange(len(rows)), feed["counts"]).tolist()
    for request, share in zip(requests, unpack({"x": feed["x"]}, rows), strict=True):
        np.testing.assert_array_equal(share["x"], request["x"])


@pytest.mark.parametrize("data_type, dtype", [("TYPE_INT32", np.int32), ("TYPE_FP32", np.float32)])
@pytest.mark.parametrize(
    "kind, expected",
    [
        ("BATCH_ELEMENT_COUNT", [2, 0, 3]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [2, 2, 5]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 2, 2, 5]),
        ("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", [0, 0, 0]),
    ],
)
def test_batch_inputs_follow_the_cpp_backend(kind: str, expected: list[int], data_type: str, dtype: type) -> None:
    """A graph that works here gets other offsets from NVIDIA's backend in production."""
    values = BatchInput(kind, data_type, "ids", ("offsets",)).values([2, 0, 3])
    assert values.dtype == dtype
    assert values.tolist() == expected


def test_bad_request_does_not_fail_its_batch(ragged_sum: OnnxModel) -> None:
    """One user's out-of-range id takes down the answers of everyone in the same batch."""
    good, bad, also_good = ragged_sum.run([{"ids": np.array([[i]])} for i in (7, 256, 9)])
    assert good["total"].item() == 7
    assert also_good["total"].item() == 9
    assert isinstance(bad, InferenceFailed)
    assert "\n" not in str(bad)
    assert "Traceback" not in str(bad)


def test_requests_of_different_width_are_answered_apart(dense_version: Path) -> None:
    """A request that cannot be concatenated with its neighbours fails them all."""
    narrow, wide = OnnxModel(DOUBLE, dense_version).run([{"x": np.ones((1, n), np.float32)} for n in (2, 3)])
    assert narrow["y"].tolist() == [[2, 2]]
    assert wide["y"].tolist() == [[2, 2, 2]]


def test_model_without_batching_runs_each_request_alone(dense_version: Path) -> None:
    """With max_batch_size 0 the first dimension is data; concatenating or splitting along it mixes requests."""
    config = changed(changed(DOUBLE, "max_batch_size", to=0), "input", 0, "dims", to=[-1, -1])
    config = changed(config, "output", 0, "dims", to=[-1, -1])
    results = OnnxModel(config, dense_version).run([{"x": np.ones((n, 2), np.float32)} for n in (1, 3)])
    assert [result["y"].shape for result in results] == [(1, 2), (3, 2)]


def test_output_with_wrong_rows_is_an_error() -> None:
    """A graph that loses the batch dimension gives some requests an empty answer without a word."""
    with pytest.raises(InferenceFailed, match=r"y .*\(2, 5\).*3 rows"):
        unpack({"y": np.zeros((2, 5))}, [1, 2])


@pytest.mark.parametrize(
    "path, value, message",
    [
        (
            ("parameters", "intra_op_threads"),
            {"string_value": "1"},
            "intra_op_threads; known are intra_op_thread_count",
        ),
        (
            ("parameters", "intra_op_thread_count"),
            {"string_value": "many"},
            "intra_op_thread_count has the value 'many'",
        ),
        (("parameters", "execution_mode"), {"string_value": "2"}, "execution_mode has the value '2'"),
        (("parameters", "concurrent_runs"), {"string_value": "all"}, "concurrent_runs has the value 'all'"),
        (("optimization",), {"graph": {"level": 3}}, "level is 3"),
        (("optimization",), {"execution_accelerators": {"gpu_execution_accelerator": [{}]}}, "execution_accelerators"),
        (("sequence_batching",), {"state": []}, "sequence_batching is not supported"),
        (("batch_input", 0, "kind"), "BATCH_ITEM_SHAPE", "expected one of BATCH_ELEMENT_COUNT"),
        (("batch_input", 0, "data_type"), "TYPE_INT64", "expected one of TYPE_INT32, TYPE_FP32"),
        (("batch_input", 0, "source_input"), ["tokens"], "expected one of ids"),
        (("batch_input", 0, "target_name"), ["starts"], "ids, starts, the graph has ids, offsets"),
        (("input", 0, "data_type"), "TYPE_INT32", "ids: config.pbtxt says TYPE_INT32, the graph has tensor.int64"),
        (("input", 0, "allow_ragged_batch"), False, r"ids: .* shape \[-1, -1\], it has \[-1\]"),
        (("input", 0, "optional"), True, "make it required"),
        (("output", 0, "dims"), [2], r"total: .* shape \[-1, 2\], it has \[-1, 1\]"),
        (("output", 0, "dims"), [-1], r"total: .* shape \[-1, -1\], it has \[-1, 1\]"),
        (("output", 0, "name"), "sum", "outputs .*sum"),
        (("default_model_filename",), "guard.onnx", "no such file"),
    ],
)
def test_configuration_that_does_not_fit_is_refused(
    ragged_version: Path, path: tuple[str | int, ...], value: Any, message: str
) -> None:
    """A misspelt option or a wrong shape is found by the first user instead of by the load."""
    with pytest.raises(InvalidModelConfig, match=message) as caught:
        OnnxModel(changed(RAGGED_SUM, *path, to=value), ragged_version)
    assert "\n" not in str(caught.value)


def test_damaged_model_is_refused_in_one_line(tmp_path: Path) -> None:
    """A truncated model file answers with a protobuf dump."""
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(InvalidModelConfig, match=r"cannot load model\.onnx") as caught:
        OnnxModel(RAGGED_SUM, tmp_path)
    assert "\n" not in str(caught.value)


def test_gpu_instance_without_cuda_is_refused(ragged_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that the config puts on a GPU silently runs on the CPU, a hundred times slower."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InvalidModelConfig, match="KIND_CPU"):
        OnnxModel(RAGGED_SUM, ragged_version, gpu=0)


def test_concurrent_runs_are_of_one_thread_each() -> None:
    """As many runs as cores with as many threads each take the cores from one another."""
    config = {"parameters": {"concurrent_runs": {"string_value": "0"}}}
    assert session_options(config).intra_op_num_threads == 1
    assert concurrent_runs(config, gpu=None) == len(os.sched_getaffinity(0))
    assert concurrent_runs(changed(config, "parameters", "concurrent_runs", to={"string_value": "3"}), gpu=None) == 3
    assert concurrent_runs(config, gpu=0) is None, "a GPU wants whole batches"
    assert concurrent_runs({}, gpu=None) is None
    config["parameters"]["intra_op_thread_count"] = {"string_value": "2"}
    with pytest.raises(InvalidModelConfig, match="remove intra_op_thread_count"):
        session_options(config)


def test_every_known_parameter_is_accepted(ragged_version: Path) -> None:
    """An option of the C++ backend stops a repository that works in production from loading here."""
    parameters = {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "execution_mode": "0",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "false",
        "session.use_device_allocator_for_initializers": "1",
        "session.intra_op.allow_spinning": "0",
        "memory.enable_memory_arena_shrinkage": "",
        "gpu_mem_limit": "1000000000",
    }
    config = changed(RAGGED_SUM, "parameters", to={key: {"string_value": value} for key, value in parameters.items()})
    config["optimization"] = {"graph": {"level": 1}}
    (result,) = OnnxModel(config, ragged_version).run([{"ids": np.array([[1, 2]])}])
    assert not isinstance(result, InferenceFailed)
    assert result["total"].item() == 3
