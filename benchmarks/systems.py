"""Who is measured beside our stack, how each is started, and at what sizes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.program import Program, ProgramFailed

MAIN_PYTHON = Path(sys.executable)


@dataclass(frozen=True)
class System:
    """A measured program: its name in the tables, its module, and the environment and arguments that it runs with.

    sizes  the conversations that it runs at a time, one measurement each
    brief  measured for one conversation a round only, since one takes it many seconds
    """

    name: str
    module: str
    python: Path
    arguments: tuple[str, ...]
    sizes: tuple[int, ...]
    brief: bool = False


def bare_name(precision: str) -> str:
    """What the bare session at this precision is called in tables."""
    return f"bare session {precision}"


def bare_session(precision: str, repository: Path, sizes: tuple[int, ...]) -> System:
    """Our graph without the server."""
    return System(bare_name(precision), "bare_session", MAIN_PYTHON, (str(repository),), sizes)


def rivals(folder: Path, checkpoint: str, mixes: Path) -> tuple[System, ...]:
    """What a user would otherwise pick; `folder` is where `make bench-rivals` installs, `mixes` the prompts' file."""
    prompts = str(mixes)
    return (
        System("transformers generate", "generate", MAIN_PYTHON, (checkpoint, prompts), (1, 4, 16)),
        System("depth-first reference", "depth_first", MAIN_PYTHON, (checkpoint, prompts), (1,), brief=True),
        System(
            "vLLM (CPU)",
            "vllm_greedy",
            folder / "vllm/bin/python",
            (str(folder / "checkpoint"), prompts, machine.fastest_float()),
            (1, 4, 16, 32),
        ),
        System(
            "llama.cpp",
            "llama_cpp_greedy",
            folder / "llama/bin/python",
            (str(folder / "checkpoint-q8_0.gguf"), prompts),
            (1,),
        ),
    )


@contextlib.contextmanager
def started(systems: tuple[System, ...], logs: Path) -> Iterator[tuple[dict[System, Program], dict[str, str]]]:
    """All programs that start, and why the others do not, by name."""
    running: dict[System, Program] = {}
    absent: dict[str, str] = {}
    with contextlib.ExitStack() as undo:
        for system in systems:
            log = logs / f"{system.module}-{len(running)}.log"
            try:
                program = Program(system.name, system.python, system.module, system.arguments, log)
            except ProgramFailed as failure:
                absent[system.name] = str(failure)
            else:
                running[system] = undo.enter_context(program)
        yield running, absent
