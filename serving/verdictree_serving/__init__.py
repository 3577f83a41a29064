"""Serves a model repository from an embedded Triton: no Docker, no GPU."""

from verdictree_serving.errors import (
    InferenceFailed,
    InvalidModelConfig,
    NotReadyInTime,
    PortInUse,
    ServerFailed,
    ServingError,
    TritonNotFound,
)
from verdictree_serving.server.launcher import TritonServer
from verdictree_serving.server.tls import GrpcTls

__all__ = [
    "GrpcTls",
    "InferenceFailed",
    "InvalidModelConfig",
    "NotReadyInTime",
    "PortInUse",
    "ServerFailed",
    "ServingError",
    "TritonNotFound",
    "TritonServer",
]
