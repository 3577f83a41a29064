"""What a user installs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import verdictree
import verdictree_client

PACKAGES = {
    "verdictree",
    "verdictree_export",
    "verdictree_client",
    "verdictree_serving",
    "verdictree_evaluation",
    "verdictree_comparison",
    "verdictree_cli",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_exactly_our_packages(wheel):
    """A top-level `client` or `export` would shadow other people's packages; a missing file would break the install."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    assert {"verdictree_serving/backends/onnxruntime/model.py", "verdictree/py.typed"} <= set(names)


def test_wheel_holds_code_of_the_model_repository_only(wheel):
    """A wheel that is built where somebody has served takes the weights, the admin key and users' texts along."""
    template = "verdictree_export/model_repository/"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.removeprefix(template) for name in names if name.startswith(template)} == {
        "guard/1/.gitkeep",
        *(f"{model}/1/model.py" for model in ("guard_marginals", "guard_router", "guard_tokenizer")),
        *(
            f"{model}/config.pbtxt"
            for model in ("guard", "guard_lm", "guard_marginals", "guard_router", "guard_tokenizer")
        ),
    }


def test_wheel_says_whose_it_is_and_what_one_may_do(wheel):
    """A package without a licence may not be used at all, and one that carries other people's work must name them."""
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info" in name}
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "Author: The Verdictree authors\n" in metadata
    assert {f"{folder}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= set(archive.namelist())


def test_public_names():
    """Renaming one of these breaks callers: do it on purpose or not at all."""
    assert verdictree.__all__ == [
        "Category", "CategoryScore", "Conversation", "GreedyVerdict", "Message", "Policy", "Verdict", "VerdictreeError",
    ]  # fmt: skip
    assert {"GuardClient", "AsyncGuardClient", "GuardError", "InvalidRequest"} <= set(verdictree_client.__all__)
