"""One tritonserver process with all that it owns: model processes, shared memory, temporary directory, gate."""

from __future__ import annotations

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
from typing import IO

from verdictree_serving.errors import ServingError
from verdictree_serving.gate import GATE_VARIABLE
from verdictree_serving.server import exec_with_parent
from verdictree_serving.server.locate import find_installation

_SHARED_MEMORY = Path("/dev/shm")
_KILL_SECONDS = 2.0
_PRIVATE = 0o077  # as umask
_MAX_LOG_BYTES = 16 << 20
_LONGEST_SOCKET_PATH = 107  # bytes, on Linux
_LOOK_SECONDS = 1.0  # who the children are is asked of all processes of the machine: milliseconds


class TritonProcess:
    """Starts tritonserver with `arguments` in a session of its own; `end` leaves nothing of it behind.

    Started from the main thread, it also ends when this process dies without calling `end`. (The kernel ties a death
    signal to the thread that asked for it, so another thread's end would stop a healthy server.)

    `log_path` is appended to and outlives the process; None keeps the log with the temporary files, which do not.
    `http` is the address and port of Triton's HTTP endpoint; None has it listen on a socket in a folder that only
    this user can enter.
    """

    def __init__(self, arguments: Sequence[str], log_path: Path | None, http: tuple[str, int] | None = None) -> None:
        installation = find_installation()
        with contextlib.ExitStack() as undo:
            scratch = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="verdictree-triton-")))
            self.log_path = log_path or scratch / "triton.log"
            self.socket_path, folders = _socket_in(scratch, undo)
            self.gate_path = scratch / "closed"
            self._shared_memory_prefix = scratch.name
            address, port = http or (f"unix:{self.socket_path}", 1)  # a socket has no port, but Triton wants one
            command = [
                str(installation.binary),
                f"--backend-directory={installation.backend_directory(scratch)}",
                f"--cache-directory={installation.caches}",
                f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
                f"--http-address={address}",
                f"--http-port={port}",
                *arguments,
            ]
            if threading.current_thread() is threading.main_thread():
                command = [sys.executable, "-I", "-S", exec_with_parent.__file__, str(os.getpid()), *command]
            log = undo.enter_context(_opened_log(self.log_path))
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**installation.environment(), GATE_VARIABLE: str(self.gate_path)},
                start_new_session=True,
                umask=_PRIVATE,
                pass_fds=folders,
            )
            self._group_killed = False
            self._looked, self._children = 0.0, list[int]()
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

    def dead_and_stopped(self) -> tuple[set[int], set[int]]:
        """Its model processes that nobody has waited for, and which of its processes a signal has stopped."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked, self._children = now, _children(self.pid)
            self.close_shared_memory()
        states = {pid: state for pid in (self.pid, *self._children) if (state := _state(pid))}
        dead = {pid for pid, state in states.items() if state == "Z" and pid != self.pid}
        return dead, {pid for pid, state in states.items() if state == "T"}

    def close_shared_memory(self) -> None:
        """Let no other user of the machine read what passes through shared memory: conversations.

        Triton opens its regions to all, whatever the umask; it makes one for each model that it loads, before requests.
        """
        for region in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            with contextlib.suppress(FileNotFoundError):  # of a model that is unloaded just now
                region.chmod(0o600)

    def log(self) -> str:
        """What this process has logged so far."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", errors="replace")

    def end(self, grace: float) -> None:
        """Ask it to finish its requests; after `grace` seconds kill it, and in any case all its model processes."""
        try:
            if grace > 0:
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
            os.killpg(self.pid, signal.SIGKILL)
            while _lives(self.pid) and time.monotonic() < deadline:
                self._process.poll()  # a process that nobody waited for stays in its group
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, deadline - time.monotonic()))


def _socket_in(folder: Path, undo: contextlib.ExitStack) -> tuple[Path, tuple[int, ...]]:
    """A path for a socket in a folder, and the open folders that a process must inherit to find it there.

    TMPDIR may be longer than a socket's path can be. Then the folder goes by the number under which it is open, which
    is the same in this process and in one that inherits it.
    """
    path = folder / "http.socket"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path, ()
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    undo.callback(os.close, opened)
    return Path(f"/proc/self/fd/{opened}/{path.name}"), (opened,)


def _opened_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown large is kept beside the new one, the one before that is not."""
    try:
        if path.is_file() and path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as exc:
        raise ServingError(
            f"expected to write Triton's log to {path}, got {exc.strerror or exc}; give another --log-file"
        ) from exc


def _children(parent: int) -> list[int]:
    paths = Path("/proc").glob("[0-9]*/stat")
    return [int(path.parent.name) for path in paths if _stat(path)[1:2] == [str(parent)]]


def _lives(group: int) -> bool:
    """Whether a process of the group still runs; a dead one that nobody has waited for does not."""
    found = (_stat(path)[:3] for path in Path("/proc").glob("[0-9]*/stat"))
    return any(stat[2:] == [str(group)] and stat[0] != "Z" for stat in found)


def _state(pid: int) -> str:
    """The state of a process as the kernel names it; empty where there is none."""
    return "".join(_stat(Path(f"/proc/{pid}/stat"))[:1])


def _stat(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return []
