"""The launcher: a model repository in, a ready Triton server with its addresses out."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from verdictree import wire
from verdictree.releases import admin_key as admin_keys
from verdictree.releases.state_folder import publish_address
from verdictree_serving import settings
from verdictree_serving.errors import NotReadyInTime, ServerFailed, ServingError, Stopped
from verdictree_serving.gate import Gate
from verdictree_serving.server import command_line
from verdictree_serving.server.drain import drain
from verdictree_serving.server.ports import Ports
from verdictree_serving.server.preflight import check_machine
from verdictree_serving.server.private_http import PrivateHttp
from verdictree_serving.server.process import TritonProcess
from verdictree_serving.server.tls import GrpcTls
from verdictree_serving.server.triton_log import first_error
from verdictree_serving.server.vital_signs import VitalSigns

_POLL_SECONDS = 0.05
_PROBE_SECONDS = 2.0
_MAX_PORT_RACES = 3  # between our choice of a free port and Triton's use of it, another process can take it


class TritonServer:
    """A Triton server on one model repository; as a context manager it is ready inside and gone after.

    Parameters
    ----------
    model_repository : directory of models
    models : the models to load; an ensemble brings its composing models along
    grpc_port, metrics_port : 0 picks a free port
    http_port : opens Triton's own HTTP endpoint to others, 0 on a free port; None keeps it to this launcher
    address : where the endpoints listen
    metrics_address : where that of the metrics does instead
    tls : encrypts gRPC (Triton has no TLS for HTTP)
    admin_key : locks the control API; None makes a key, which `admin_key` tells and `verdictree rollout` finds in the
        repository's state folder
    response_cache_mb : memory for the answers to conversations that come again; 0 keeps none
    log_path : where Triton's log goes, appended; by default a temporary file that `stop` removes
    extra_arguments : further tritonserver options, passed as they are
    """

    def __init__(
        self,
        model_repository: Path | str,
        *,
        models: Sequence[str] = (wire.MODEL,),
        http_port: int | None = None,
        grpc_port: int = 0,
        metrics_port: int = 0,
        address: str = wire.HOST,
        metrics_address: str | None = None,
        tls: GrpcTls | None = None,
        admin_key: str | None = None,
        response_cache_mb: int = 0,
        log_path: Path | None = None,
        extra_arguments: Sequence[str] = (),
    ) -> None:
        self._model_repository = Path(model_repository).resolve()
        self._models = tuple(models)
        self._wanted_ports = Ports(http_port, grpc_port, metrics_port)
        self._address = address
        self._metrics_address = metrics_address or address
        self._tls = tls
        self._given_key = admin_key
        self._admin_key = admin_key or ""
        self._response_cache_mb = response_cache_mb
        self._log_path = log_path
        self._extra_arguments = tuple(extra_arguments)
        self._ports = self._wanted_ports
        self._process: TritonProcess | None = None

    def start(self) -> None:
        """Start the server and return at once; raise `TritonNotFound`, `PortInUse` or `ServingError`."""
        if self._process is not None:
            raise ServingError("expected a stopped server, but it is started; call stop() first")
        if not self._model_repository.is_dir():
            raise ServingError(f"expected a model repository at {self._model_repository}: no such directory")
        check_machine()
        if self._tls is not None:
            self._tls.check()
        self._ports = self._wanted_ports.resolve(self._address)
        self._admin_key = self._given_key or admin_keys.publish_new(self._model_repository)
        publish_address(self._model_repository, self.grpc_address)
        http = None if self._ports.http is None else (self._address, self._ports.http)
        self._process = TritonProcess(self._arguments(), self._log_path, http)
        self._vital_signs = VitalSigns(self._process)

    def wait_ready(self, timeout: float = 120.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until the server and its models answer; `timeout` in seconds.

        Raises `ServerFailed` as soon as the server's process, or a model's, has ended, `NotReadyInTime` after
        `timeout`, and `Stopped` as soon as `stopped` says that nobody waits any more.
        A port that was picked and then lost to another process is picked anew, which changes the addresses.
        """
        deadline = time.monotonic() + timeout
        port_races = 0
        while not (self.is_ready() and self._is_complete()):
            if stopped():
                raise Stopped("told to stop before the server was ready")
            failure = self.failure()
            if failure is not None:
                port_races += 1
                if not self._lost_port_race(self._started().log()) or port_races > _MAX_PORT_RACES:
                    raise ServerFailed(failure)
                self.stop()
                self.start()
            if time.monotonic() > deadline:
                raise NotReadyInTime(f"{', '.join(self._models)} not ready after {timeout:g} s; see {self.log_path}")
            time.sleep(_POLL_SECONDS)
        self._started().close_shared_memory()
        self._wanted_ports = self._ports  # a server that is started again is found where it was

    def is_ready(self) -> bool:
        """Whether the server's processes live and each of its models takes requests, whatever else it loads."""
        return self.is_whole() and all(map(self.answers, self._models)) and self.is_whole()

    def is_whole(self) -> bool:
        """Whether the server's process and those of its models live and run."""
        return self._started().exit_status() is None and self._vital_signs.are_good()

    def answers(self, model: str) -> bool | None:
        """Whether the server says that `model` takes requests; None where it says nothing in time."""
        try:
            return self.private_http.status(f"/v2/models/{model}/ready", _PROBE_SECONDS) == http.client.OK
        except OSError:
            return None

    def failure(self) -> str | None:
        """Why this server cannot go on and must be started anew, or None.

        Its process has ended, a model's process has died, or one is stopped and does not go on. A server that is only
        too busy to answer has not failed.
        """
        status = self._started().exit_status()
        if status is not None:
            return f"tritonserver ended with status {status}: {first_error(self._started().log())}"
        return self._vital_signs.failure()

    @property
    def private_http(self) -> PrivateHttp:
        """Triton's HTTP endpoint, opened by the admin key; Triton's own words for each call."""
        process = self._started()
        where = process.socket_path if self._ports.http is None else (self._address, self._ports.http)
        return PrivateHttp(where, {admin_keys.ADMIN_KEY_NAME: self._admin_key})

    @property
    def gate(self) -> Gate:
        """What keeps new requests out of this server."""
        return Gate(self._started().gate_path)

    def drain(self, seconds: float) -> bool:
        """Refuse new requests, answer those in flight for at most so many `seconds`, and end; whether all were."""
        if self._process is None:
            return True
        deadline = time.monotonic() + seconds
        all_answered = True
        for model in self._models:
            left = deadline - time.monotonic()
            all_answered &= self.is_whole() and drain(self.private_http, self.gate, model, self.is_whole, left)
        self.stop(grace=0.0)
        return all_answered

    def stop(self, grace: float = settings.DRAIN_SECONDS) -> None:
        """End the server, killing after `grace` seconds what has not ended by itself; do nothing if not started."""
        process, self._process = self._process, None
        if process is not None:
            process.end(grace)

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return f"{self._address}:{self._ports.grpc}"

    @property
    def http_address(self) -> str | None:
        """`host:port` of Triton's HTTP endpoint; None where it is not open."""
        return None if self._ports.http is None else f"{self._address}:{self._ports.http}"

    @property
    def admin_key(self) -> str:
        """The key that opens the control API."""
        return self._admin_key

    @property
    def metrics_address(self) -> str:
        """`host:port` of the Prometheus endpoint, whose path is `/metrics`."""
        return f"{self._metrics_address}:{self._ports.metrics}"

    @property
    def pid(self) -> int:
        """The server's process id, which is also the id of its process group."""
        return self._started().pid

    @property
    def log_path(self) -> Path:
        """The file with Triton's log."""
        return self._started().log_path

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:  # an interrupt too must not leave a server behind
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _arguments(self) -> list[str]:
        own = command_line.arguments(
            self._model_repository,
            self._models,
            self._address,
            self._metrics_address,
            self._ports,
            self._tls,
            self._admin_key,
            self._response_cache_mb,
        )
        return [*own, *self._extra_arguments]

    def _is_complete(self) -> bool:
        """Whether the endpoint that Triton opens last, after its models are ready, is Triton's."""
        try:
            metrics = PrivateHttp((self._metrics_address, self._ports.metrics), {})
            return metrics.status("/metrics", _PROBE_SECONDS) == http.client.OK
        except OSError:
            return False

    def _started(self) -> TritonProcess:
        if self._process is None:
            raise ServingError("expected a started server; call start() first")
        return self._process

    def _lost_port_race(self, log: str) -> bool:
        return "already in use" in log and 0 in vars(self._wanted_ports).values()
