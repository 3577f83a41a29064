"""What a user installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import verdictree
import verdictree_client

PACKAGES = {
    "verdictree",
    "verdictree_export",
    "verdictree_client",
    "verdictree_serving",
    "verdictree_evaluation",
    "verdictree_comparison",
}


def test_wheel_holds_exactly_our_packages(tmp_path):
    """A top-level `client` or `export` would shadow other people's packages; a missing file would break the install."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    for needed in (
        "verdictree_serving/backends/onnxruntime/model.py",
        "verdictree_export/model_repository/guard/config.pbtxt",
        "verdictree_export/model_repository/guard_tokenizer/1/model.py",
        "verdictree/py.typed",
    ):
        assert needed in names
    assert not [name for name in names if name.endswith((".onnx", "release.json"))], "releases are not code"


def test_public_names():
    """Renaming one of these breaks callers: do it on purpose or not at all."""
    assert verdictree.__all__ == [
        "Category", "CategoryScore", "Conversation", "GreedyVerdict", "Message", "Policy", "Verdict", "VerdictreeError",
    ]  # fmt: skip
    assert {"GuardClient", "AsyncGuardClient", "GuardError", "InvalidRequest"} <= set(verdictree_client.__all__)
