"""What a user installs."""

from __future__ import annotations

import os
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
    "verdictree_gateway",
    "verdictree_evaluation",
    "verdictree_comparison",
    "verdictree_cli",
}


def build(folder: Path, *options: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *options], check=True, capture_output=True
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))  # by way of a source distribution, as it is published


def contents(path: Path) -> dict[str, bytes]:
    archive = zipfile.ZipFile(path)
    return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def test_wheel_holds_exactly_our_packages(wheel):
    """A top-level `client` or `export` would shadow other people's packages; a missing file would break the install."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    assert {"verdictree_serving/backends/onnxruntime/model.py", "verdictree/py.typed"} <= set(names)


def test_wheel_is_the_same_without_a_source_distribution(wheel, tmp_path):
    """`pip install .` and what is published differ where one of the two follows links and the other does not."""
    assert contents(build(tmp_path, "--wheel")) == contents(wheel)


def test_wheel_holds_the_policies_and_the_embedded_guard(wheel):
    """Outside a checkout there is no folder `policies/` and no recipe: what the README exports would not be there."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"verdictree/policies/{path.name}" for path in Path("policies").glob("*.yaml")} <= names
    adapter = Path("export/recipes/embedded_guard/adapter")
    assert {f"verdictree_export/embedded_guard/adapter/{path.name}" for path in adapter.iterdir()} <= names


OUTSIDE = """
import sys
sys.modules |= dict.fromkeys({blocked}, None)
from click.testing import CliRunner
import verdictree, verdictree_client
from verdictree.policy import Policy
from verdictree_cli import main
assert verdictree.__file__.startswith({place!r}), verdictree.__file__
assert Policy.read(__import__("pathlib").Path("embedded")).codes
for arguments in (["--help"], *([name, "--help"] for name in main.commands)):
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
done = CliRunner().invoke(main, ["classify", "Hi", "--url", "127.0.0.1:1"])
assert done.exit_code == 1 and "start it with `verdictree serve`" in done.stderr, done.stderr
"""


def test_wheel_works_outside_the_checkout_with_the_client_alone(wheel, tmp_path):
    """What lies in the checkout, or comes with another extra, is there in our environment and not in a user's."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    blocked = ["torch", "transformers", "onnx", "onnxruntime", "tokenizers", "scipy", "sklearn", "jinja2", "starlette"]
    code = OUTSIDE.format(blocked=blocked, place=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed"), "PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


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
        "Category", "CategoryScore", "Conversation", "GreedyVerdict", "Message", "Place", "Policy", "Verdict",
        "VerdictreeError", "Window",
    ]  # fmt: skip
    assert {"GuardClient", "AsyncGuardClient", "GuardError", "InvalidRequest"} <= set(verdictree_client.__all__)
