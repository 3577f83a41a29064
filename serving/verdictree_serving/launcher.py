"""The launcher: a model repository in, a ready Triton server with its addresses out."""

import contextlib
import http.client
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from verdictree_serving.control_lock import locked
from verdictree_serving.errors import NotReadyInTime, ServerFailed, ServingError
from verdictree_serving.ports import Ports
from verdictree_serving.process import TritonProcess
from verdictree_serving.tls import GrpcTls
from verdictree_serving.triton_log import first_error

_POLL_SECONDS = 0.05
_PROBE_SECONDS = 2.0
_MAX_PORT_RACES = 3  # between our choice of a free port and Triton's use of it, another process can take it


class TritonServer:
    """A Triton server on one model repository; as a context manager it is ready inside and gone after.

    Parameters
    ----------
    model_repository : directory of models
    models : the models to load; an ensemble brings its composing models along
    http_port, grpc_port, metrics_port : 0 picks a free port
    address : where all three endpoints listen
    tls : encrypts gRPC (Triton has no TLS for HTTP)
    admin_key : locks the control API; without it anyone who reaches the server can load and unload models
    response_cache_mb : memory for the answers to conversations that come again; 0 keeps none
    log_path : where Triton's log goes; by default a temporary file that `stop` removes
    extra_arguments : further tritonserver options, passed as they are
    """

    def __init__(
        self,
        model_repository: Path | str,
        *,
        models: Sequence[str] = ("guard",),
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        address: str = "127.0.0.1",
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
        self._tls = tls
        self._admin_key = admin_key
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
        self._ports = self._wanted_ports.resolve(self._address)
        self._process = TritonProcess(self._arguments(), self._log_path)

    def wait_ready(self, timeout: float = 120.0) -> None:
        """Return once the server and its models answer; ``timeout`` in seconds.

        Raises `ServerFailed` as soon as the server's process, or a model's, has ended and `NotReadyInTime` after
        ``timeout``.
        A port that was picked and then lost to another process is picked anew, which changes the addresses.
        """
        deadline = time.monotonic() + timeout
        port_races = 0
        while not self.is_ready():
            status = self._started().exit_status()
            if status is not None:
                log = self._started().log()
                port_races += 1
                if not self._lost_port_race(log) or port_races > _MAX_PORT_RACES:
                    raise ServerFailed(f"tritonserver ended with status {status}: {first_error(log)}")
                self.stop()
                self.start()
            if self._started().has_lost_a_model():
                raise ServerFailed(
                    "a model's process has died, killed for want of memory perhaps; start the server anew"
                )
            if time.monotonic() > deadline:
                raise NotReadyInTime(f"{', '.join(self._models)} not ready after {timeout:g} s; see {self.log_path}")
            time.sleep(_POLL_SECONDS)

    def is_ready(self) -> bool:
        """Return whether the server's processes live and it reports itself and each of its models ready."""
        if self._started().exit_status() is not None:
            return False
        paths = ["/v2/health/ready", *(f"/v2/models/{model}/ready" for model in self._models)]
        return all(self._answers(path) for path in paths) and not self._started().has_lost_a_model()

    def stop(self, grace: float = 30.0) -> None:
        """End the server, killing after ``grace`` seconds what has not ended by itself; do nothing if not started."""
        process, self._process = self._process, None
        if process is not None:
            process.end(grace)

    @property
    def grpc_address(self) -> str:
        """``host:port`` of the gRPC endpoint."""
        return f"{self._address}:{self._ports.grpc}"

    @property
    def http_address(self) -> str:
        """``host:port`` of the HTTP endpoint."""
        return f"{self._address}:{self._ports.http}"

    @property
    def metrics_address(self) -> str:
        """``host:port`` of the Prometheus endpoint, whose path is ``/metrics``."""
        return f"{self._address}:{self._ports.metrics}"

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
        endpoints = [
            option
            for name, port in vars(self._ports).items()
            for option in (f"--{name}-address={self._address}", f"--{name}-port={port}")
        ]
        return [
            f"--model-repository={self._model_repository}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            "--exit-on-error=true",
            "--disable-auto-complete-config",  # the committed config.pbtxt is the whole truth
            *endpoints,
            *(self._tls.arguments() if self._tls else ()),
            *(locked(self._admin_key) if self._admin_key else ()),
            *([f"--cache-config=local,size={self._response_cache_mb << 20}"] if self._response_cache_mb else ()),
            *self._extra_arguments,
        ]

    def _started(self) -> TritonProcess:
        if self._process is None:
            raise ServingError("expected a started server; call start() first")
        return self._process

    def _answers(self, path: str) -> bool:
        # Not urllib: a proxy from the environment must not stand between us and our own server.
        connection = http.client.HTTPConnection(self._address, self._ports.http, timeout=_PROBE_SECONDS)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                return connection.getresponse().status == http.client.OK
            except (OSError, http.client.HTTPException):
                return False

    def _lost_port_race(self, log: str) -> bool:
        return "already in use" in log and 0 in vars(self._wanted_ports).values()
