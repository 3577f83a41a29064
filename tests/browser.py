"""A real browser, where there is one: what a page does when an analyst opens it."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
needed = pytest.mark.skipif(_PROGRAM is None, reason="no Chromium or Chrome is installed to open the page in")
RAN = "hostile-code-ran"
_RUN = f"document.documentElement.setAttribute('{RAN}','1')"


def hostile(address: str) -> str:
    """A text that does all it can: run scripts, fetch `address`, style or close what it stands in."""
    parts = [
        f"<script>{_RUN}</script>",
        f"</title></style></textarea><script>{_RUN}</script>",
        f'<img src=x onerror="{_RUN}">',
        f"\"'><svg onload={_RUN}>",
        f'<img src="http://{address}/i"><link rel=stylesheet href="http://{address}/l">',
        f"<style>*{{background:url(http://{address}/c)}}</style><iframe srcdoc='<script>parent.{_RUN}</script>'>",
        f"<meta http-equiv=refresh content='0;url=http://{address}/m'><base href=http://{address}/>",
        "<!-- ]]> {{ 7 * 7 }} ${alert(1)} &lt;script&gt;",
    ]
    return " ".join(parts)


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that nobody should ask, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=functools.partial(server.serve_forever, 0.05), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def opened(page: str, folder: Path, with_policy: bool = True) -> str:
    """The page's document after it was opened and its scripts ran; without its security policy if so wished."""
    path = folder / "page.html"
    path.write_text(page if with_policy else _POLICY.sub("", page), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run([str(_PROGRAM), *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
