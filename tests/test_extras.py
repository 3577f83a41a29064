"""What the extras declare, and what is said where one is missing."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from verdictree_cli import extras, main

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = {}
for extra, required in PROJECT["optional-dependencies"].items():  # one that begins with another extra stands after it
    found = re.fullmatch(r"verdictree\[(\w+)\]", required[0])
    DECLARED[extra] = [*DECLARED[found[1]], *required[1:]] if found else required
TWINS = ("export", "serve", "evaluate")
# The modules behind each extra's commands; with a star, all that lie below.
ROOMS = {
    "client": ("verdictree_client",),
    "rollout": ("verdictree_client.rollout.*", "verdictree_comparison.*"),
    "export": ("verdictree_export.*",),
    "gateway": ("verdictree_gateway.*", "verdictree.v1.*"),
    "serve": ("verdictree_serving.*", "verdictree_gateway.*"),
    "evaluate": ("verdictree_evaluation.*",),
}
# What an option of theirs needs besides, and says so where it is missing.
OPTIONAL = {"gateway": "tracing", "serve": "tracing"}
GIVEN = {"triton_python_backend_utils"}  # by Triton, to the models that it runs


def name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def source(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec and spec.origin else None


def opened(pattern: str) -> Iterator[str]:
    module = pattern.removesuffix(".*")
    yield module
    path = source(module)
    if pattern.endswith(".*") and path:
        for file in path.parent.rglob("*.py"):
            parts = file.relative_to(path.parent).with_suffix("").parts
            if file.name != "__init__.py" and all(part.isidentifier() for part in parts):
                yield ".".join((module, *parts))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or in a function; not what only type checkers see."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)
        pending.extend(ast.iter_child_nodes(node))


def foreign(patterns: tuple[str, ...]) -> set[str]:
    """The other people's packages that are imported by modules of ours, and by all of ours that those import."""
    pending = [module for pattern in patterns for module in opened(pattern)]
    seen, found = set(), set()
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        top, _, rest = module.partition(".")
        if not top.startswith("verdictree"):
            found.add(top)
            continue
        if rest:
            pending.append(module.rpartition(".")[0])
        try:
            path = source(module)
        except ModuleNotFoundError:  # a name in a module
            continue
        if path and path.suffix == ".py":
            pending.extend(imports(path))
    return found - set(sys.stdlib_module_names) - GIVEN


@pytest.mark.parametrize("extra", ROOMS)
def test_an_extra_declares_all_that_its_commands_import(extra):
    """What another extra happens to install is there in our environment, and missing in a user's."""
    declared = {
        name(one) for one in (*PROJECT["dependencies"], *DECLARED[extra], *DECLARED.get(OPTIONAL.get(extra, ""), ()))
    }
    distributions = packages_distributions()
    undeclared = {
        package for package in foreign(ROOMS[extra]) if not declared & set(map(name, distributions.get(package, [])))
    }
    assert not undeclared


@pytest.mark.parametrize("extra", TWINS)
def test_a_gpu_extra_differs_in_its_runtime_only(extra):
    """Two ONNX Runtimes in one environment overwrite each other, and the GPU is not used."""
    plain, gpu = set(DECLARED[extra]), set(DECLARED[f"{extra}-gpu"])
    assert {name(one) for one in plain ^ gpu} == {"onnxruntime", "onnxruntime-gpu"}
    assert [one for one in gpu if re.fullmatch(r"onnxruntime-gpu==[\d.]+", one)], "another one wants other libraries"


def test_gpu_is_all_gpu_extras():
    """Who asks for everything on a GPU must not get the runtime for CPUs with it."""
    assert DECLARED["gpu"] == [f"verdictree[{','.join(f'{extra}-gpu' for extra in TWINS)}]"]


def leaves():
    for command, one in main.commands.items():
        inner = getattr(one, "commands", {})
        yield from ((command, name) for name in inner) if inner else [(command,)]


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_a_missing_extra_is_named_by_itself(words):
    """A user of one command was told to install everything, gigabytes of it."""
    extra = re.search(r"pip install 'verdictree\[([a-z]+)\]'", extras.fix(words, "something"))
    assert extra and extra[1] in DECLARED


def test_a_gpu_user_is_told_of_the_gpu_extra(monkeypatch):
    """The plain extra would install the other ONNX Runtime over the one for CUDA."""
    monkeypatch.setattr(extras, "distribution", lambda name: name)
    assert "'verdictree[serve-gpu]'" in extras.fix(["serve"], "uvicorn")
    assert "'verdictree[client]'" in extras.fix(["classify"], "tritonclient")


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["classify", "Hi"], "tritonclient", "client"),
        (["rollout", "status"], "tritonclient", "rollout"),
        (["policy", "add", "children", "--release", "1"], "torch", "export"),
        (["policy", "check", "--release", "1"], "onnxruntime", "serve"),
    ],
)
def test_a_command_without_its_extra_ends_in_one_line(arguments, package, extra):
    """A missing package ended in a traceback, or in a list of all extras."""
    code = f"import sys; sys.modules[{package!r}] = None; from verdictree_cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    command = " ".join(arguments[:2]) if arguments[0] == "policy" else arguments[0]
    assert done.stderr.startswith(f"Error: `verdictree {command}` needs the package {package!r}")
    assert done.stderr.endswith(f"pip install 'verdictree[{extra}]'\n") and done.stderr.count("\n") == 1


@pytest.mark.registry
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", [*ROOMS, "gpu"])
def test_an_extra_resolves_by_itself(extra, python, tmp_path):
    """Without our constraints a resolver finds old versions, sources to compile, or nothing at all."""
    (tmp_path / "pyproject.toml").write_text(Path("pyproject.toml").read_text())
    options = ["--python-version", python, "--only-binary", ":all:", "--no-header", "--no-annotate"]
    indexes = {"UV_DEFAULT_INDEX": os.environ["PIP_INDEX_URL"]} if "PIP_INDEX_URL" in os.environ else {}
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", extra, *options],
        cwd=tmp_path,
        env={**os.environ, **indexes, "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
    )
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    runtimes = {line.partition("==")[0] for line in done.stdout.splitlines()} & {"onnxruntime", "onnxruntime-gpu"}
    assert len(runtimes) == (extra in (*TWINS, "gpu"))
    triton = re.search(r"^nvidia-pytriton==(.*)$", done.stdout, re.MULTILINE)
    assert bool(triton) == (extra in ("serve", "gpu") and python != "3.13")
