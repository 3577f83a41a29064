"""The benchmark's quick mode, on a guard that takes seconds: a real Triton, the real perf_analyzer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_guard

from verdictree_export.exporter import export_release

PERF_ANALYZER = Path(".perf/bin/perf_analyzer")


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """What the quick mode's last line says."""
    folder = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("tiny-guard"))
    config = json.loads((folder / "config.json").read_text())
    # Its tokenizer takes nearly a token for each byte.
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    repository = tmp_path_factory.mktemp("models")
    export_release(str(folder), "llama-guard-3", [tiny_guard.POLICY], repository, max_off_grammar=1.0)
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", str(repository)]
    done = subprocess.run([*command, "--perf-analyzer", str(PERF_ANALYZER)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.server
@pytest.mark.slow
def test_last_line_is_the_whole_result(document):
    """A figure that is missing, or measured in another unit, would pass unnoticed into the README."""
    (mix,) = document["workload"]["mixes"]
    assert mix["unsafe_share"] == pytest.approx(0.05, abs=0.005)
    assert document["ceilings_gops"]["fp32"]["ceiling"] > 1
    runs = {(run["system"], run["load"]): run for run in document["runs"]}
    assert set(runs) == {
        ("Verdictree fp32", "concurrency 1"),
        ("Verdictree fp32", "concurrency 8"),
        ("bare session fp32", "1 at a time"),
        ("bare session fp32", f"{len(os.sched_getaffinity(0))} at a time"),
    }
    prompt_tokens = document["workload"]["suffix_tokens"] + mix["conversation_tokens"]["mean"]
    for run in runs.values():
        assert run["requests_per_s"] > 0
        assert run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"]
        assert 0.5 * prompt_tokens < run["computed_tokens"] < 3 * prompt_tokens
        assert 0 < run["ceiling_fraction"] < 1
        assert run["resident_mb"] > 50
    assert document["absent"] == {}
    assert document["ratios"]["stack overhead, production"] < 1
