"""One tritonserver process with all that it owns: model processes, shared memory, log, temporary directory."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from verdictree_serving import exec_with_parent
from verdictree_serving.locate import find_installation

_SHARED_MEMORY = Path("/dev/shm")
_LOST_SECONDS = 2.0  # Triton itself ends the process of a model that it unloads, and waits for it at once
_KILL_SECONDS = 2.0  # bounded, because where process 1 reaps nothing a dead process stays in its group


class TritonProcess:
    """Starts tritonserver with ``arguments`` in a session of its own; `end` leaves nothing of it behind.

    Started from the main thread, it also ends when this process dies without calling `end`. (The kernel ties a death
    signal to the thread that asked for it, so another thread's end would stop a healthy server.)
    """

    def __init__(self, arguments: Sequence[str], log_path: Path | None) -> None:
        installation = find_installation()
        with contextlib.ExitStack() as undo:
            scratch = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="verdictree-triton-")))
            self.log_path = log_path or scratch / "triton.log"
            self._shared_memory_prefix = scratch.name
            command = [
                str(installation.binary),
                f"--backend-directory={installation.backend_directory(scratch)}",
                f"--cache-directory={installation.caches}",
                f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
                *arguments,
            ]
            if threading.current_thread() is threading.main_thread():
                command = [sys.executable, "-I", "-S", exec_with_parent.__file__, str(os.getpid()), *command]
            log = undo.enter_context(open(self.log_path, "wb"))
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=installation.environment(),
                start_new_session=True,
            )
            self._group_killed = False
            self._seen_dead: dict[int, float] = {}  # children that nobody has waited for, since when
            self._resources = undo.pop_all()

    @property
    def pid(self) -> int:
        """The server's process id, which is also the id of its process group."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return None while it runs, then its exit code, or minus the signal that killed it."""
        status = self._process.poll()
        if status is not None:
            self._kill_group()
        return status

    def has_lost_a_model(self) -> bool:
        """Return whether a model's process died, was killed for memory, say: Triton goes on, and only errors come out.

        Known from the second call on that is two seconds after the first one that could see it.
        """
        now = time.monotonic()
        self._seen_dead = {child: self._seen_dead.get(child, now) for child in _dead_children(self.pid)}
        return any(now - since >= _LOST_SECONDS for since in self._seen_dead.values())

    def log(self) -> str:
        """Return what it has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def end(self, grace: float) -> None:
        """Ask it to finish its requests; after ``grace`` seconds kill it, and in any case all its model processes."""
        try:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        finally:
            self._kill_group()
            for region in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
                region.unlink(missing_ok=True)
            self._resources.close()

    def _kill_group(self) -> None:
        # Once only, when the server is known to have ended or must end: later, its id may be another process's.
        if self._group_killed:
            return
        self._group_killed = True
        deadline = time.monotonic() + _KILL_SECONDS
        with contextlib.suppress(ProcessLookupError):  # raised once the group is empty
            while time.monotonic() < deadline:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.poll()  # a process that nobody waited for stays in its group
                time.sleep(0.01)


def _dead_children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if state == "Z" and int(its_parent) == parent:
            found.append(int(status.parent.name))
    return found
