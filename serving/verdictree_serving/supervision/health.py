"""What a supervisor says of its server to balancers, orchestrators and Prometheus: `/ready`, `/live`, `/metrics`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Health:
    """One server's state, written by its supervisor, read by anybody.

    ready: green while the pinned release takes requests; red while it starts, drains, has lost a model process, or is
    not what was exported. live: green until the supervisor gives up. Both say why, in plain text.
    """

    def __init__(self, more_metrics: Callable[[], bytes] = bytes) -> None:
        """`more_metrics`, in Prometheus' text format, are told with those of the supervisor."""
        self._more_metrics = more_metrics
        self.reason = "starting"  # why it is not ready; empty where it is
        self.has_given_up = False
        self.metrics = CollectorRegistry()
        self.restarts = Counter("verdictree_restarts", "Times that Triton was started anew.", registry=self.metrics)
        self.self_checks = Counter(
            "verdictree_self_checks", "Golden conversations asked, by outcome.", ["outcome"], registry=self.metrics
        )
        self.damaged = Gauge(
            "verdictree_release_damaged", "1 where the served release is not what was exported.", registry=self.metrics
        )
        ready = Gauge("verdictree_ready", "1 while /ready is green.", registry=self.metrics)
        ready.set_function(lambda: float(not self.reason))

    def application(self) -> Starlette:
        """The three addresses, as an ASGI application."""
        return Starlette(
            routes=[
                Route("/ready", lambda _request: _light(not self.reason, self.reason)),
                Route("/live", lambda _request: _light(not self.has_given_up, self.reason)),
                Route("/metrics", self._metrics),
            ]
        )

    def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self.metrics) + self._more_metrics(), media_type=CONTENT_TYPE_LATEST)


def _light(is_green: bool, reason: str) -> Response:
    return PlainTextResponse("ok\n" if is_green else f"{reason}\n", 200 if is_green else 503)


@contextlib.contextmanager
def served(health: Health, listener: socket.socket) -> Iterator[None]:
    """Answer on a bound socket, in a thread of its own, until the block ends."""
    config = uvicorn.Config(
        health.application(),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16 << 10,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=5)
