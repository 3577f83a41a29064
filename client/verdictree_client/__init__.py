"""The client of a Verdictree server: a conversation in, a typed `Verdict` out, over gRPC, sync or asyncio.

    from verdictree_client import GuardClient, GuardError

    with GuardClient("guard.internal:8001", deadline=2.0) as guard:
        verdict = guard.classify("How do I pick a lock?")
        print(verdict.p_unsafe, verdict.ranked[0].code, verdict.ranked[0].marginal)

Every failure raises a `GuardError`: an error is never a verdict, and what to do without one is the caller's decision.

    client.py  aio.py     how calls are sent, in threads or in one event loop
        └────┬───┘
        protocol.py       one call's life: attempts, deadline, what a failure means; the same for both
             ├── conversations.py   what callers pass, checked
             ├── server.py          typed by a gateway, or by KServe v2 by Triton itself: what is sent, what is read
             ├── deadline.py        the time that is left, and the retries that fit into it
             ├── connection.py      address.py, TLS, channel options
             └── errors.py          gRPC's errors as ours, at this one place
"""

from verdictree_client.aio import AsyncGuardClient
from verdictree_client.client import GuardClient
from verdictree_client.connection import TLS
from verdictree_client.deadline import Retries
from verdictree_client.errors import (
    DeadlineExceeded,
    GuardError,
    InvalidRequest,
    InvalidSettings,
    NotAllowed,
    Overloaded,
    ServerFailure,
    ServerUnavailable,
)
from verdictree_client.protocol import Health

__all__ = [
    "TLS",
    "AsyncGuardClient",
    "DeadlineExceeded",
    "GuardClient",
    "GuardError",
    "Health",
    "InvalidRequest",
    "InvalidSettings",
    "NotAllowed",
    "Overloaded",
    "Retries",
    "ServerFailure",
    "ServerUnavailable",
]
