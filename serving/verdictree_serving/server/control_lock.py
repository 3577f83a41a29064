"""The lock on what changes a server: models, shared memory, tracing and logging.

Inference, health, and reading configurations and statistics, as perf_analyzer does, stay open.
"""

from verdictree.releases.admin_key import ADMIN_KEY_NAME

_PROTOCOLS = "shared-memory,model-repository,trace,logging"


def locked(key: str) -> list[str]:
    """Return Triton's command-line options that want ``key`` for each of these calls, over gRPC and over HTTP."""
    return [f"--{option}={_PROTOCOLS}:{ADMIN_KEY_NAME}={key}" for option in _OPTIONS]


_OPTIONS = ("grpc-restricted-protocol", "http-restricted-api")
