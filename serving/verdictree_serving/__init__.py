"""Serves a model repository from an embedded Triton: no Docker, no GPU.

supervision/ ─► server/ ─► tritonserver ─► triton_steps/          in Triton's model processes
                                └────────► onnxruntime_backend/   for `guard_lm`, where NVIDIA's is not installed

gate.py   closed while draining or damaged: the launcher closes it, the first step refuses
"""

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
