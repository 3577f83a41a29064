"""The interface that callers in every language build on: buf's rules for it, and nothing that breaks them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / ".buf" / "package" / "bin"
PROTO = "verdictree/v1/guard.proto"
BASELINE = Path(__file__).with_name("guard_baseline.proto")  # what callers have; only ever changed by adding to it
INCLUDE = Path(sys.prefix) / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
pytestmark = pytest.mark.skipif(
    not PLUGINS.is_dir(), reason="buf is missing: `make .buf/.fetched` fetches it, and needs npm"
)


def compiled(root: Path, *options: str) -> str:
    """What protoc says of the interface below `root`; nothing where all is well."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"-I{INCLUDE}", *options, PROTO]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr


def checked(kind: str, root: Path, folder: Path, **options: str | bool) -> str:
    """What buf says of it: `lint`, or `breaking`."""
    plugin = f"--plugin=protoc-gen-buf-{kind}={PLUGINS / f'protoc-gen-buf-{kind}'}"
    said = json.dumps({"input_config": str(ROOT / "buf.yaml"), **options})
    return compiled(root, plugin, f"--buf-{kind}_out={folder}", f"--buf-{kind}_opt={said}")


def written(folder: Path, text: str) -> Path:
    path = folder / PROTO
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


def test_the_interface_keeps_to_the_rules(tmp_path):
    """Names that generators of other languages turn into something else, or that cannot grow."""
    assert checked("lint", ROOT, tmp_path) == ""


def test_the_rules_are_looked_at(tmp_path):
    """A check that is not run finds nothing either."""
    spoilt = (ROOT / PROTO).read_text().replace("string routing_key = 4", "string RoutingKey = 4")
    assert "should be lower_snake_case" in checked("lint", written(tmp_path / "spoilt", spoilt), tmp_path)


def breaks(root: Path, folder: Path) -> str:
    image = folder / "baseline.binpb"
    baseline = written(folder / "baseline", BASELINE.read_text())
    assert compiled(baseline, "--include_imports", f"--descriptor_set_out={image}") == ""
    return checked("breaking", root, folder, against_input=str(image), exclude_imports=True)


def test_nothing_breaks_callers_of_before(tmp_path):
    """A field that was renumbered: old callers read a threshold as a version. To add is free; see CONTRIBUTING.md."""
    assert breaks(ROOT, tmp_path) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string routing_key = 4;", "string routing_key = 5;"),
        ("double p_unsafe = 5;", "float p_unsafe = 5;"),
        ("  ROLE_ASSISTANT = 2;\n", ""),
        ("rpc ListPolicies(ListPoliciesRequest)", "rpc Policies(ListPoliciesRequest)"),
    ],
)
def test_what_would_break_them_is_found(tmp_path, old, new):
    """A check that is not run finds nothing either."""
    spoilt = (ROOT / PROTO).read_text()
    assert old in spoilt
    assert "guard.proto" in breaks(written(tmp_path / "spoilt", spoilt.replace(old, new)), tmp_path)
