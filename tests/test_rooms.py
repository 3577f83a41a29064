"""Which room may use which: arrows go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Old names of modules, for the adapters in releases of format 1: they stand on the ground and lead to the rooms.
OLD_DOORS = {f"verdictree.{name}" for name in ("calibration", "release", "scorer", "tokenization")}
PACKAGES = [ROOT / "verdictree", *sorted(path.parent for path in ROOT.glob("*/verdictree_*/__init__.py"))]
NOT_OURS = ("model_repository", "backends")  # model.py files, which Triton loads by their path

# What a room may use besides itself, and besides the modules of its package's own root that use no room.
CORE = (
    "verdictree",
    "verdictree.text",
    "verdictree.families",
    "verdictree.verdict_tree",
    "verdictree.files",
    "verdictree.releases",
)
ALL_OF_THE_CORE = (*CORE, "verdictree.runtime")
TYPED = "verdictree.v1"  # needs grpcio, so nothing of the core uses it
MAY_USE = {
    "verdictree.text": (),
    "verdictree": CORE[1:2],
    "verdictree.families": CORE[:2],
    "verdictree.verdict_tree": CORE[:3],
    "verdictree.files": CORE[:2],
    "verdictree.releases": CORE[:5],
    "verdictree.runtime": CORE,
    "verdictree.v1": CORE[:2],
    "verdictree_comparison": CORE,
    "verdictree_client": (*CORE[:2], TYPED),
    "verdictree_client.rollout": (*ALL_OF_THE_CORE, "verdictree_client", "verdictree_comparison"),
    "verdictree_export.checkpoints": CORE,
    "verdictree_export.prompts": (*ALL_OF_THE_CORE, "verdictree_export.checkpoints"),
    "verdictree_export.graph": CORE,
    "verdictree_export.onnx_file": (*ALL_OF_THE_CORE, "verdictree_export.graph"),
    "verdictree_export.embedded_guard": CORE,
    "verdictree_export.int8": (*ALL_OF_THE_CORE, "verdictree_export.graph", "verdictree_export.onnx_file"),
    "verdictree_export.early_exit": (*ALL_OF_THE_CORE, "verdictree_export.graph", "verdictree_export.onnx_file"),
    "verdictree_export": (
        *ALL_OF_THE_CORE,
        *(
            f"verdictree_export.{room}"
            for room in ("checkpoints", "prompts", "graph", "onnx_file", "int8", "early_exit")
        ),
    ),
    "verdictree_serving.onnxruntime_backend": ALL_OF_THE_CORE,
    "verdictree_serving.triton_steps": ALL_OF_THE_CORE,
    "verdictree_serving.server": CORE,
    "verdictree_serving.supervision": (*ALL_OF_THE_CORE, "verdictree_serving.server"),
    "verdictree_serving": (*CORE, "verdictree_serving.server"),
    "verdictree_gateway.web": (*CORE, "verdictree_gateway", "verdictree_gateway.web.page"),
    "verdictree_gateway.web.page": (),
    "verdictree_gateway.observing": CORE,
    "verdictree_gateway": (*CORE, TYPED, "verdictree_gateway.web", "verdictree_gateway.observing"),
    "verdictree_evaluation.data": CORE,
    "verdictree_evaluation.metrics": (*CORE, "verdictree_evaluation.data"),
    "verdictree_evaluation.reports": (*CORE, "verdictree_evaluation.data", "verdictree_evaluation.metrics"),
    "verdictree_evaluation": (
        *(*ALL_OF_THE_CORE, "verdictree_client"),
        *(f"verdictree_evaluation.{room}" for room in ("data", "metrics", "reports")),
    ),
}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            if not set(NOT_OURS) & set(path.parts):
                name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()
ROOMS = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def room(module: str) -> str:
    return module if module in ROOMS else module.rpartition(".")[0]


def imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "") in MODULES:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def test_arrows_go_one_way():
    """An import upward ties two subjects into one: neither can be read, moved or replaced without the other."""
    wrong = []
    for module in MODULES:
        own = room(module)
        if own == "verdictree_cli" or module in OLD_DOORS:
            continue  # the commands may use every room; nothing may use them
        for target in imports(module):
            there = room(target)
            is_ground = there == own.split(".")[0] and not any(
                room(one) != there for one in imports(target) if one.startswith(there)
            )
            if target in OLD_DOORS or (there != own and not is_ground and there not in MAY_USE[own]):
                wrong.append(f"{module} → {target}")
    assert wrong == []
    assert {room for room in ROOMS if room != "verdictree_cli"} == MAY_USE.keys()


def test_no_room_is_a_drawer():
    """Of more than sixteen modules nobody remembers which is which."""
    for one in ROOMS:
        assert sum(room(module) == one and module != one for module in MODULES) <= 16, one


def test_families_and_verdict_tree_are_pure():
    """What a verdict is, and how likely, must be readable and testable with numpy alone."""
    pure = [module for module in MODULES if room(module) in ("verdictree.families", "verdictree.verdict_tree")]
    script = f"""
import sys
for module in {pure!r}:
    __import__(module)
standard = {{*sys.stdlib_module_names, "verdictree", "numpy", "msgspec", "yaml", "typing_extensions", "cython_runtime"}}
print(sorted({{name.split(".")[0] for name in sys.modules}} - standard))
"""
    found = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    assert [name for name in ast.literal_eval(found) if not name.startswith("_")] == []
