"""Whose request it is, as the gateway knows it once the key is checked."""

from __future__ import annotations

from dataclasses import dataclass

from verdictree_gateway.tenants import Account


@dataclass(frozen=True)
class Caller:
    """Who asks: the account, the request's id, W3C's `traceparent` if there is one, and what came to which port."""

    account: Account
    request_id: str
    port: str
    traceparent: str | None = None
