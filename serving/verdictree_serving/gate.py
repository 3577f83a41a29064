"""The gate of one server: while a file exists, the first step refuses every request with what the file says.

Triton has no way to take no new requests and still answer those that it has: it stops its models one by one, and an
ensemble in flight loses its later steps. So the first step refuses, and the others go on.
"""

from __future__ import annotations

import os
from pathlib import Path

GATE_VARIABLE = "VERDICTREE_GATE"  # in the environment of the model processes: the file's path


class Gate:
    """The file, as the steps look at it and the supervisor makes it."""

    def __init__(self, path: Path | None) -> None:
        """`path` None is a gate that is always open: nobody supervises this server."""
        self._path = None if path is None else str(path)

    @classmethod
    def of_environment(cls) -> Gate:
        """The gate that this process was started with."""
        path = os.environ.get(GATE_VARIABLE)
        return cls(Path(path) if path else None)

    @classmethod
    def before_graph(cls, version: str) -> Gate:
        """One that is closed while no more requests can wait for the graph of this version."""
        path = os.environ.get(GATE_VARIABLE)
        return cls(Path(f"{path}.{version}") if path else None)

    def reason(self) -> str | None:
        """Why nobody is let in, or None: one look at the file system."""
        if self._path is None or not os.path.exists(self._path):
            return None
        try:
            with open(self._path, encoding="utf-8") as file:
                return file.read() or "closed"
        except FileNotFoundError:  # opened meanwhile
            return None

    def close(self, reason: str) -> None:
        """Let nobody in from now on."""
        if self._path is not None:
            temporary = f"{self._path}.tmp"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(reason)
            os.replace(temporary, self._path)

    def open(self) -> None:
        """Let requests in again."""
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)
