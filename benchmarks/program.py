"""A measured program in a process of its own: started once, then run as often as one likes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine
from benchmarks.run import Run

_ROOT = Path(__file__).parents[1]
_LOAD_SECONDS = 600  # vLLM compiles kernels first
_ANSWER_SECONDS = 600  # the depth-first search takes long over one conversation


class ProgramFailed(Exception):
    """A program did not start, ended, or did not answer in time; the message is its own last words."""


class Program:
    """One system, `python -m benchmarks.programs.MODULE`; as a context manager it is loaded inside and gone after."""

    def __init__(self, name: str, python: Path, module: str, arguments: Sequence[str], log: Path) -> None:
        """`python` is the interpreter of the environment to run in; ProgramFailed where it does not load."""
        if not python.exists():
            raise ProgramFailed("not installed; run `make bench-rivals`")
        self.name = name
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python.absolute()), "-m", f"benchmarks.programs.{module}", *arguments],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            self.version = str(self._read(_LOAD_SECONDS)["version"])
        except ProgramFailed:
            self.close()
            raise

    def run(self, mix: str, size: int, seconds: float) -> Run:
        """Run conversations of a mix, `size` at a time, for at least so many seconds."""
        assert self._process.stdin is not None
        order = json.dumps({"mix": mix, "size": size, "seconds": seconds})
        try:
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise ProgramFailed(self._last_words()) from exc
        answer = self._read(_ANSWER_SECONDS + seconds)
        latencies = answer.pop("latencies_ms")
        return Run.of_latencies(latencies, answer.pop("seconds"), self.resident_megabytes(), counts=answer)

    def resident_megabytes(self) -> float:
        """What the program and its children hold."""
        return machine.resident_megabytes(self._process.pid)

    def close(self) -> None:
        """End the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise ProgramFailed(self._last_words() if ready else f"no answer within {seconds:.0f} s")
        document: dict[str, Any] = json.loads(line)
        return document

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1][:300] if lines else 'ended without a word'} (see {self._log})"
