"""What tritonserver is started with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from verdictree.releases.admin_key import ADMIN_KEY_NAME
from verdictree_serving.server.ports import Ports
from verdictree_serving.server.tls import GrpcTls

# What changes a server: models, shared memory, tracing and logging. Inference, health, and reading configurations and
# statistics, as perf_analyzer does, stay open.
_LOCKED = "shared-memory,model-repository,trace,logging"
_LOCKS = ("grpc-restricted-protocol", "http-restricted-api")


def arguments(
    model_repository: Path,
    models: Sequence[str],
    address: str,
    metrics_address: str,
    ports: Ports,
    tls: GrpcTls | None,
    admin_key: str,
    response_cache_mb: int,
) -> list[str]:
    """The command's options, but for those of the HTTP endpoint, which are its owner's; see `TritonServer`."""
    endpoints = [
        option
        for name, host, port in (("grpc", address, ports.grpc), ("metrics", metrics_address, ports.metrics))
        for option in (f"--{name}-address={host}", f"--{name}-port={port}")
    ]
    return [
        f"--model-repository={model_repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--exit-on-error=true",
        "--strict-readiness=false",  # or the server calls itself not ready while a candidate loads
        "--disable-auto-complete-config",  # the committed config.pbtxt is the whole truth
        *endpoints,
        *(tls.arguments() if tls else ()),
        *(f"--{option}={_LOCKED}:{ADMIN_KEY_NAME}={admin_key}" for option in _LOCKS),
        *([f"--cache-config=local,size={response_cache_mb << 20}"] if response_cache_mb else ()),
    ]
