"""Long requests beside short ones: in bounds, in turns, and answered as if they had been one run."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

from verdictree.conversation import Conversation, Message
from verdictree.runtime.local_guard import LocalGuard
from verdictree_serving.errors import InferenceFailed, InvalidInput, Overloaded
from verdictree_serving.onnxruntime_backend.backend import OnnxModel
from verdictree_serving.onnxruntime_backend.lanes import LongLane, Turns

REPOSITORY = Path(__file__).parents[1] / "old_releases" / "format_1"
FLOATS = {"label_logits": 2, "log_normalizer": 1, "top_logit": 1}
CONFIG: dict[str, Any] = {
    "max_batch_size": 4,
    "input": [
        {"name": "input_ids", "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True},
        {"name": "prefix_id", "data_type": "TYPE_INT32", "dims": [-1]},
    ],
    "batch_input": [
        {
            "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
            "target_name": ["row_ends"],
            "data_type": "TYPE_INT32",
            "source_input": ["input_ids"],
        }
    ],
    "output": [
        *({"name": name, "data_type": "TYPE_FP32", "dims": [-1] * dims} for name, dims in FLOATS.items()),
        {"name": "expansions", "data_type": "TYPE_INT32", "dims": [-1, -1]},
    ],
}


def model(**parameters: str) -> OnnxModel:
    values = {key: {"string_value": value} for key, value in parameters.items()}
    return OnnxModel({**CONFIG, "parameters": values}, REPOSITORY / "guard_lm" / "1")


@pytest.fixture(scope="module")
def request_of_windows() -> dict[str, np.ndarray]:
    guard = LocalGuard.load(REPOSITORY, 1, threads=1)
    tokenized = guard.tokenize(Conversation((Message("user", "so why, hello? " * 800),), truncate="windows"))
    assert len(tokenized.windows) > 5
    return {"input_ids": tokenized.input_ids[None], "prefix_id": np.array([tokenized.prefix_ids], np.int32)}


@pytest.mark.parametrize("parameters", [{"concurrent_runs": "1"}, {"intra_op_thread_count": "1"}])
def test_windows_in_turn_are_windows_at_once(request_of_windows, parameters):
    """Windows that come together in another order, or are lost where they do not fill a batch."""
    one = model(**parameters)
    windows, answers = one.windows(request_of_windows), Queue()
    assert len(windows) == request_of_windows["prefix_id"].size
    lane = LongLane(one, Turns(1), 60.0)
    lane.offer(windows, 0, answers.put)
    found, (whole,) = answers.get(timeout=60), one.run([request_of_windows])
    lane.close()
    assert found.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)


def test_who_waits_has_the_next_turn(request_of_windows):
    """A long text that is computed as a whole before anybody else."""
    one, turns, answers = model(concurrent_runs="1"), Turns(1), Queue()
    windows, lane = one.windows(request_of_windows) * 20, LongLane(one, turns, 60.0)
    lane.offer(windows, 0, answers.put)
    for _ in range(5):
        turns.take()
        assert answers.empty()
        turns.give()
    assert len(answers.get(timeout=60)["top_logit"][0]) > 0
    lane.close()


def test_who_comes_too_late_is_refused_at_once(request_of_windows):
    """Long requests that wait without an end, or are computed after their callers have gone."""
    one, turns, answers = model(concurrent_runs="1"), Turns(1), Queue()
    windows, lane = one.windows(request_of_windows), LongLane(one, turns, 60.0)
    turns.take()
    lane.offer(windows, 0, answers.put)
    while not turns._door.locked():
        time.sleep(0.01)
    for _ in range(10):
        lane.offer(windows, 0.01, answers.put)
    refused = [answers.get(timeout=1) for _ in range(2)]
    assert all(isinstance(one, Overloaded) and "queue size" in str(one) for one in refused) and answers.empty()
    time.sleep(0.02)
    turns.give()
    first, *others = (answers.get(timeout=60) for _ in range(9))
    assert isinstance(first, dict)
    assert all(isinstance(one, Overloaded) and "timeout expired" in str(one) for one in others)
    lane.close()
    assert threading.active_count() < 20


def test_a_fault_in_one_window_is_the_requests(request_of_windows):
    """Half of a long text judged, and the other half silently left out."""
    one, answers = model(concurrent_runs="1"), Queue()
    lane = LongLane(one, Turns(1), 60.0)
    damaged = {**request_of_windows, "input_ids": request_of_windows["input_ids"].copy()}
    damaged["input_ids"][0, -1] = 10**6
    lane.offer(one.windows(damaged), 0, answers.put)
    assert isinstance(answers.get(timeout=60), InferenceFailed)
    lane.close()
    for fault in ({"prefix_id": np.zeros((1, 33), np.int32)}, {"input_ids": damaged["input_ids"][:, 1:]}):
        wrong = {**request_of_windows, **fault}
        assert one.windows(wrong) == [wrong] and isinstance(one.run([wrong])[0], InvalidInput)
