"""One process of a gateway: all ports in one event loop, until SIGTERM and the last answer.

Started by `workers.py` as `python -m verdictree_gateway.worker`, with the settings as JSON on standard input, the HTTP
port's listening socket as a file descriptor, and a folder for its metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import msgspec
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from uvicorn.protocols.http.h11_impl import H11Protocol

from verdictree.v1 import guard_pb2_grpc
from verdictree_gateway.front import Front
from verdictree_gateway.grpc_guard import GuardService
from verdictree_gateway.grpc_kserve import MOST_BYTES, SERVICE, KServe
from verdictree_gateway.observing.exits import Exits
from verdictree_gateway.observing.log_lines import log_to_stderr
from verdictree_gateway.observing.tracing import Tracing
from verdictree_gateway.observing.watch import Watch
from verdictree_gateway.policies import Policies
from verdictree_gateway.settings import Settings, Tls
from verdictree_gateway.triton import Triton
from verdictree_gateway.web.application import Web

_GUARD = "verdictree.v1.Guard"
_TICK_SECONDS = 0.5
_HEADER_BYTES = 16 << 10
_HEADER_SECONDS = 10.0
_READY_SECONDS = 2.0
_SILENT_SECONDS = 120.0
EXITS_OFF = "exits-off"  # the file beside the metrics that is there while early exits are switched off
READY_SUFFIX = ".ready"  # of a file beside the metrics, which is there while a server behind takes requests


class Order(msgspec.Struct, frozen=True):
    """What a process is told: the gateway's settings, the socket, and where its metrics go."""

    settings: Settings
    http_socket: int
    metrics_file: str


class _BoundedProtocol(H11Protocol):
    """HTTP whose request lines and headers must come within seconds: a slow sender holds no connection for long."""

    def connection_made(self, transport: Any) -> None:
        """A new connection."""
        super().connection_made(transport)
        self.loop.call_later(_HEADER_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def grpc_server(settings: Settings) -> grpc.aio.Server:
    """A server with bounds on what a stranger may send; compressed messages are refused, unread."""
    return grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", MOST_BYTES),
            ("grpc.max_metadata_size", _HEADER_BYTES),
            ("grpc.compression_enabled_algorithms_bitset", 1),  # none but identity
            ("grpc.max_concurrent_streams", 2 * settings.max_in_flight),
            ("grpc.keepalive_time_ms", int(1000 * _SILENT_SECONDS)),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.server_handshake_timeout_ms", int(1000 * _HEADER_SECONDS)),
        ],
        maximum_concurrent_rpcs=16 * settings.max_in_flight,
    )


def _add_port(server: grpc.aio.Server, settings: Settings) -> None:
    address = f"{settings.address}:{settings.grpc_port}"
    if settings.tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, _credentials(settings.tls))


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    root = None if tls.client_root is None else Path(tls.client_root).read_bytes()
    pair = (Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())
    return grpc.ssl_server_credentials([pair], root, root is not None)


def _http_server(settings: Settings, web: Web) -> uvicorn.Server:
    tls: dict[str, Any] = {}
    if settings.tls is not None:
        tls = {"ssl_certfile": settings.tls.certificate, "ssl_keyfile": settings.tls.key}
        if settings.tls.client_root is not None:
            tls |= {"ssl_ca_certs": settings.tls.client_root, "ssl_cert_reqs": 2}  # ssl.CERT_REQUIRED
    config = uvicorn.Config(
        web.application(),
        http=_BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        **tls,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    return server


class Worker:
    """Everything that one process runs."""

    def __init__(self, order: Order) -> None:
        self._order, settings = order, order.settings
        self._watch = Watch(settings, Path(order.metrics_file).stem)
        self._triton = Triton(settings.triton, settings.triton_tls)
        self._tracing = Tracing(settings.otlp)
        process, switch = Path(order.metrics_file).stem, Path(order.metrics_file).with_name(EXITS_OFF)
        exits = Exits(settings, self._triton.ask, self._watch.registry, switch, process)
        self._front = Front(settings, self._triton, self._watch, exits, self._tracing)
        policies = Policies(Path(settings.repository) if settings.repository else None)
        self._health = HealthServicer()
        self._grpc = grpc_server(settings)
        guard_pb2_grpc.add_GuardServicer_to_server(GuardService(self._front, policies), self._grpc)
        self._grpc.add_generic_rpc_handlers((KServe(self._front, self._triton).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection(
            (_GUARD, SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME), self._grpc
        )
        _add_port(self._grpc, settings)
        self._http = _http_server(settings, Web(self._front, policies))
        self._stopped, self._parent = asyncio.Event(), os.getppid()

    async def run(self) -> None:
        """Serve until told to stop; then answer what is in flight."""
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, self._stopped.set)
        await self._grpc.start()
        listener = socket.socket(fileno=self._order.http_socket)
        serving = asyncio.create_task(self._serve_http(listener))
        ticking = asyncio.create_task(self._tick())
        print("ready", flush=True)
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        self._front.is_draining = True
        await self._health.enter_graceful_shutdown()
        while self._front.in_flight:  # whoever comes meanwhile is refused with words, not with a closed port
            await asyncio.sleep(0.01)
        ticking.cancel()
        self._http.should_exit = True
        await self._grpc.stop(grace=0.5)
        await serving
        await self._triton.close()
        await asyncio.to_thread(self._tracing.close)
        self._write_metrics()

    async def _serve_http(self, listener: socket.socket) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._http._serve([listener])

    async def _tick(self) -> None:
        """Keep the health service and the metrics up to date; end with the parent, which may have been killed."""
        while True:
            if os.getppid() != self._parent:
                self._stopped.set()
            ready = await self._triton.is_ready(_READY_SECONDS)
            kind = health_pb2.HealthCheckResponse
            for name in ("", _GUARD):
                await self._health.set(name, kind.SERVING if ready else kind.NOT_SERVING)
            self._tell_ready(ready)
            self._write_metrics()
            await asyncio.sleep(_TICK_SECONDS)

    def _tell_ready(self, ready: bool) -> None:
        path = Path(self._order.metrics_file).with_suffix(READY_SUFFIX)
        with contextlib.suppress(OSError):
            if ready:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def _write_metrics(self) -> None:
        self._watch.in_flight.set(self._front.in_flight)
        path = Path(self._order.metrics_file)
        with contextlib.suppress(OSError):  # a full disk
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(self._watch.text())
            temporary.replace(path)


async def _main() -> None:
    await Worker(msgspec.json.decode(sys.stdin.buffer.read(), type=Order)).run()


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(_main())
