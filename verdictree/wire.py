"""What a caller of a served guard must know: the names of the model and of its tensors, and where a server listens."""

from __future__ import annotations

MODEL = "guard"
REQUEST, VERDICT = "request", "verdict"  # BYTES of shape (1, 1): a conversation's JSON in, a verdict's JSON out
HOST = "127.0.0.1"
GRPC_PORT, HTTP_PORT, METRICS_PORT, HEALTH_PORT = 8001, 8000, 8002, 8003
URL = f"{HOST}:{GRPC_PORT}"
DEADLINE = 10.0  # seconds that a caller waits where nobody says otherwise
