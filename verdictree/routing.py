"""Which release answers a request while a canary runs: a stable choice that anyone can compute again.

share(key) = the first 4 bytes of SHA-256(salt + ":" + key), as a big-endian integer, over 2³²: uniform on [0, 1).

A request belongs to the canary if its share is below the canary's fraction, so whoever is in it at 5 % still is at
20 %. The salt names the candidate, so not always the same users are first.
"""

from __future__ import annotations

import hashlib

import msgspec

from verdictree.conversation import Conversation


def routing_key(conversation: Conversation) -> bytes:
    """What a request is routed by: its `routing_key` in UTF-8, or else the JSON of its messages."""
    if conversation.routing_key is not None:
        return conversation.routing_key.encode()
    return msgspec.json.encode(conversation.messages)


def share(key: bytes, salt: str) -> float:
    """A key's place on [0, 1)."""
    digest = hashlib.sha256(salt.encode() + b":" + key).digest()
    return int.from_bytes(digest[:4], "big") / 2.0**32
