"""Triton's HTTP endpoint, as its own launcher asks it: over a socket that nobody else can open, or over TCP."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class PrivateHttp:
    """Asks one server; every failure to get an answer is an OSError.

    Not urllib: a proxy from the environment must not stand between a launcher and its own server.
    """

    def __init__(self, where: Path | tuple[str, int], headers: Mapping[str, str]) -> None:
        self._where = where
        self._headers = dict(headers)

    def status(self, path: str, timeout: float) -> int:
        """The status code of a GET."""
        return self._ask("GET", path, None, timeout)[0]

    def post(self, path: str, body: Any, timeout: float) -> Any:
        """The JSON that answers `body`; OSError for any status but 200, with what the server says."""
        status, content = self._ask("POST", path, json.dumps(body), timeout)
        if status != http.client.OK:
            raise OSError(f"{path}: {status} {content[:500].decode(errors='replace')}")
        return json.loads(content) if content else None

    def get(self, path: str, timeout: float) -> Any:
        """The JSON that answers a GET; OSError for any status but 200."""
        status, content = self._ask("GET", path, None, timeout)
        if status != http.client.OK:
            raise OSError(f"{path}: {status} {content[:500].decode(errors='replace')}")
        return json.loads(content)

    def _ask(self, method: str, path: str, body: str | None, timeout: float) -> tuple[int, bytes]:
        with contextlib.closing(self._connection(timeout)) as connection:
            try:
                connection.request(method, path, body, self._headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except http.client.HTTPException as exc:
                raise OSError(f"{path}: {type(exc).__name__} {exc}") from exc

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if isinstance(self._where, Path):
            return _UnixConnection(str(self._where), timeout)
        return http.client.HTTPConnection(*self._where, timeout=timeout)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
