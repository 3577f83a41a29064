"""One tritonserver process with all that it owns: model processes, shared memory, log, temporary directory."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from verdictree_serving import exec_with_parent
from verdictree_serving.locate import find_installation

_SHARED_MEMORY = Path("/dev/shm")


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
            self._resources = undo.pop_all()

    @property
    def pid(self) -> int:
        """The server's process id, which is also the id of its process group."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return None while it runs, then its exit code, or minus the signal that killed it."""
        return self._process.poll()

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
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            for region in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
                region.unlink(missing_ok=True)
            self._resources.close()
