"""What a caller of a served guard must know: names of model and tensors, where a server listens, what refusals say."""

from __future__ import annotations

MODEL = "guard"
REQUEST, VERDICT = "request", "verdict"  # BYTES of shape (1, 1): a conversation's JSON in, a verdict's JSON out
HOST = "127.0.0.1"
GRPC_PORT, HTTP_PORT, METRICS_PORT, HEALTH_PORT = 8001, 8000, 8002, 8003
URL = f"{HOST}:{GRPC_PORT}"
DEADLINE = 10.0  # seconds that a caller waits where nobody says otherwise
QUEUED_SHARE = 0.75  # of a deadline, for waiting; the rest is for computing, and for the way back
# Words of Triton's and of the steps': a full queue and an expired wait, a dead model process, a closed gate.
QUEUE_FULL = ("exceeds maximum queue size", "timeout expired")
DEAD_PROCESS = "is not healthy"
NOT_TAKING = "not taking requests"  # how such a refusal begins
