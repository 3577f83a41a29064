"""What a server is told where nobody says otherwise."""

from __future__ import annotations

DRAIN_SECONDS = 30.0  # how long a stop waits for the requests in flight
SELF_CHECK_SECONDS = 60.0  # between two golden conversations
