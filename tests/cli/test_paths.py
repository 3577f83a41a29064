"""Every option and argument of every command that takes a path, with every kind of path that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
import tiny_guard
import yaml
from click.testing import CliRunner

from verdictree_cli import main

pytestmark = pytest.mark.slow

KINDS = ("missing", "a folder", "unreadable", "junk", "empty", "in a file")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


CASES = [
    pytest.param(path, parameter, kind, id=f"{'-'.join(path)} {parameter.name} {kind}")
    for path, command in commands(main)
    for parameter in command.params
    if isinstance(parameter.type, click.Path | click.File)
    for kind in KINDS
]
# What each command needs beside the path that is tried.
NEEDED = {
    ("inspect",): ["{checkpoint}"],
    ("export",): ["{checkpoint}", "--family", "llama-guard-3"],
    ("gateway",): ["--triton", "127.0.0.1:1", "--grpc-port", "0", "--http-port", "0", "--health-port", "0"],
    ("classify",): ["--url", "127.0.0.1:1", "--deadline", "2"],
    ("rollout", "canary"): ["--fraction", "0.1"],
    ("rollout", "shadow"): ["--fraction", "0.1"],
    ("rollout", "stage"): ["1"],
    ("rollout", "retire"): ["1"],
    ("rollout", "derive"): ["--threshold", "0.5"],
}
GOOD = {"policies": "{policy}", "files": "{policy}", "repository": "{repository}", "out": "{out}", "data": "{data}"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    checkpoint = tiny_guard.write_checkpoint(folder / "checkpoint", **tiny_guard.FLUENT)
    (folder / "policy.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(tiny_guard.POLICY)))
    (folder / "repository").mkdir()
    (folder / "data.csv").write_text("text,labels\nhello,\n")
    names = {"policy": "policy.yaml", "repository": "repository", "out": "out", "data": "data.csv"}
    return {"checkpoint": str(checkpoint)} | {key: str(folder / name) for key, name in names.items()}


@pytest.fixture
def wrong(tmp_path):
    def path(kind: str) -> Path:
        one = tmp_path / "given"
        if kind == "a folder":
            one.mkdir()
        elif kind == "junk":
            one.write_bytes(bytes(range(256)) * 8)
        elif kind == "empty":
            one.touch()
        elif kind == "in a file":
            one.touch()
            return one / "below"
        return Path("/proc/self/mem") if kind == "unreadable" else one  # which not even root can read from its start

    return path


@pytest.mark.parametrize(("path", "parameter", "kind"), CASES)
def test_a_wrong_path_is_one_line(path, parameter, kind, places, wrong, monkeypatch):
    """A traceback of forty lines hides the one word that the operator mistyped."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = dict(commands(main))[path]
    arguments = [one.format(**places) for one in NEEDED.get(path, [])]
    for other in command.params:
        if other.name in GOOD and other is not parameter and (other.required or other.name == "repository"):
            good = GOOD[other.name].format(**places)
            arguments += [good] if isinstance(other, click.Argument) else [other.opts[0], good]
    given = str(wrong(kind))
    arguments += [given] if isinstance(parameter, click.Argument) else [parameter.opts[0], given]
    if path == ("classify",) and parameter.name != "conversation":
        arguments.append("hello")
    result = CliRunner().invoke(main, [*path, *arguments], prog_name="verdictree")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1, 2) and "Traceback" not in result.output
    if result.exit_code == 1:
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and errors[0] == result.stderr.splitlines()[-1] and len(errors[0]) < 2100


def test_the_table_is_whole():
    """A command whose options are not found is not tried."""
    tried = {case.values[0] for case in CASES}
    assert tried == {path for path, _ in commands(main)} - {("gateway-key",)}, "which takes no path"
