"""The GPU's benchmark on a CPU: a script that has never run fails in the one hour in which somebody has a card."""

from __future__ import annotations

import pytest
import tiny_guard
from click.testing import CliRunner

from benchmarks import gpu

pytestmark = pytest.mark.slow


def test_every_step_runs(tmp_path):
    """A batch's rate, the ceiling, and answers that are the CPU's own."""
    checkpoint = str(tiny_guard.write_checkpoint(tmp_path / "checkpoint", max_position_embeddings=2048))
    found = [*gpu.measure(checkpoint, tmp_path / "models", "llama-guard-3", "CPUExecutionProvider", (1, 3), (16,))]
    assert [one["batch"] for one in found] == [1, 3]
    for one in found:
        assert one["requests_per_s"] > 0 and one["ceiling_tops"] > 0 and one["difference"] == 0


def test_without_a_card_it_says_what_to_install():
    """ONNX Runtime would measure the CPU, and call it a GPU."""
    done = CliRunner().invoke(gpu.main, ["smollm2-135m"])
    assert done.exit_code == 1 and "expected an ONNX Runtime with CUDA, got one without" in done.output
