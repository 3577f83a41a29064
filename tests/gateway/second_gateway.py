"""Another gateway before a server that runs, with options of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from supervised import VERDICTREE, Served


@contextlib.contextmanager
def gateway(server: Served, *options: str) -> Iterator[str]:
    """Its HTTP address."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "health")]
    behind = ["--triton", server.said["triton"], "--repository", str(server.repository)]
    command = [VERDICTREE, "gateway", "--json", *ports, *behind, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://{json.loads(process.stdout.readline())['http']}"
        finally:
            process.terminate()
