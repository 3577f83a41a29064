"""The door between a release on disk and the software that serves it."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import verdictree_serving
from verdictree_serving.server.locate import find_installation

REPOSITORY = Path(__file__).parents[2] / "model_repository"
DOOR = {
    "guard_tokenizer": ("verdictree_serving.triton_steps.tokenizer", "TokenizerStep"),
    "guard_marginals": ("verdictree_serving.triton_steps.marginals", "MarginalsStep"),
    "guard_router": ("verdictree_serving.triton_steps.router", "RouterStep"),
}


@pytest.mark.parametrize("model", DOOR)
def test_an_adapter_is_one_import(model):
    """A second import in an adapter would tie every release on disk to another module's name."""
    docstring, door = ast.parse((REPOSITORY / model / "1" / "model.py").read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(door, ast.ImportFrom)
    (name,) = door.names
    assert (door.module, name.name, name.asname) == (*DOOR[model], "TritonPythonModel")


def test_every_python_step_has_its_adapter():
    """A step that is not pinned here could be renamed under the releases that import it."""
    assert {path.parts[-3] for path in REPOSITORY.glob("*/1/model.py")} == set(DOOR)


@pytest.mark.parametrize(("module", "name"), DOOR.values())
def test_the_door_opens(module, name, monkeypatch):
    """Renaming one of these breaks every release that was exported before."""
    found = find_installation()
    homes = [path.parent for path in found.python_backend] or [found.backends / "python"]
    for home in dict.fromkeys(homes):  # Triton's own `triton_python_backend_utils`
        monkeypatch.syspath_prepend(home)
    for loaded in [key for key in sys.modules if key.startswith(f"{verdictree_serving.__name__}.triton_steps")]:
        monkeypatch.delitem(sys.modules, loaded)
    step = getattr(import_module(module), name)
    assert {"initialize", "execute"} <= set(vars(step))
