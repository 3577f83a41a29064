"""A GPU that is asked for is used, or its absence is named: no silent fall-back to the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from recorded_pass import LIBRARIES, WHEEL

pytestmark = pytest.mark.skipif(
    not (LIBRARIES / "libcudnn.so.9").exists(), reason="needs what `make gpu-check` fetches"
)

PROGRAM = """
import onnx, onnxruntime, sys
from pathlib import Path
from onnx import TensorProto, helper
from verdictree.runtime.session import open_session

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value("x")], [value("y")])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), sys.argv[1])
session = open_session(Path(sys.argv[1]), onnxruntime.SessionOptions(), ["CUDAExecutionProvider"])
print(session.get_providers()[0])
"""


def run(folder, without=None):
    libraries = folder / "lib"
    libraries.mkdir()
    for library in LIBRARIES.glob("lib*.so.*"):
        if library.name != without:
            (libraries / library.name).symlink_to(library)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(WHEEL)}
    command = [sys.executable, "-c", PROGRAM, str(folder / "model.onnx")]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_with_all_libraries_the_gpu_is_used(tmp_path):
    """A check that refuses a sound installation would be worse than none."""
    done = run(tmp_path)
    assert done.stdout.strip() == "CUDAExecutionProvider", done.stderr


@pytest.mark.parametrize("library", ["libcurand.so.10", "libcublasLt.so.13", "libcudnn.so.9"])
def test_a_missing_library_is_named(tmp_path, library):
    """ONNX Runtime runs on the CPU with a line in its log; without cuDNN it loads, and every request fails."""
    done = run(tmp_path, without=library)
    assert done.returncode and f"GpuUnavailable: expected {library} for CUDAExecutionProvider" in done.stderr
