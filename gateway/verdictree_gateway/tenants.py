"""Who may ask, about what, and how often: API keys, by hash, of tenants in a file that is read again when it changes.

    tenants:
      - name: chat
        keys: [5e88…]             # SHA-256 of each key, as `verdictree gateway-key` prints it
        policies: [embedded]      # none: all
        requests_per_second: 50   # none: as many as come
        burst: 100                # at once, after a pause; default: those of one second
        max_in_flight: 16         # none: as many as the gateway lets in

Without a file everybody is one tenant, who may do everything.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import msgspec

from verdictree.errors import VerdictreeError
from verdictree.text.visible import bounded, quoted
from verdictree_gateway.refused import Reason, Refused

_LOOK_SECONDS = 1.0
_HASH = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_PREFIX = "vt-"
log = logging.getLogger(__name__)


class InvalidKeys(VerdictreeError):
    """A file of tenants that is none."""


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may ask; see the module's example."""

    name: str
    keys: tuple[_HASH, ...] = ()
    policies: tuple[str, ...] = ()
    requests_per_second: _Positive | None = None
    burst: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: tuple[Tenant, ...]


EVERYBODY = Tenant("everybody")


def new_key() -> tuple[str, str]:
    """A key for a tenant, and the hash of it for the file."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, hashed(key)


def hashed(key: str) -> str:
    """The hash by which a key stands in the file. A key is random, so that one pass of SHA-256 cannot be undone."""
    return hashlib.sha256(key.encode()).hexdigest()


def read(path: Path) -> dict[str, Tenant]:
    """The tenants of a file, by the hashes of their keys; InvalidKeys where it is none."""
    try:
        tenants = msgspec.yaml.decode(path.read_bytes(), type=_File).tenants
    except OSError as exc:
        raise InvalidKeys(f"expected a file of tenants at '{path}', got {exc.strerror}; give its path") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        said = bounded(str(exc), 200)
        raise InvalidKeys(
            f"expected tenants with names and keys in '{path}', got: {said}; see docs/gateway.md"
        ) from exc
    by_hash: dict[str, Tenant] = {}
    for tenant in tenants:
        for one in tenant.keys:
            if one in by_hash:
                raise InvalidKeys(f"expected each key once in '{path}', got {one[:8]}… twice; make a new one")
            by_hash[one] = tenant
    names = [tenant.name for tenant in tenants]
    if len(names) != len(set(names)):
        raise InvalidKeys(f"expected each tenant once in '{path}', got {names}; rename one")
    return by_hash


class Bucket:
    """The requests that one tenant may send now: refilled at a rate, up to a burst."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, time.monotonic()

    def take(self, count: int = 1) -> float:
        """Take `count`, 0; or none, and the seconds until there are so many."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if count <= self._left:
            self._left -= count
            return 0.0
        return (min(count, self._burst) - self._left) / self._rate


class Account:
    """What a tenant has used of what is theirs."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.in_flight = 0
        rate = tenant.requests_per_second
        self._bucket = None if rate is None else Bucket(rate, tenant.burst or max(1.0, rate))

    def policy(self, name: str | None) -> str | None:
        """The policy that a request asks by; a tenant's first where it names none. Refused where it is not theirs."""
        theirs = self.tenant.policies
        if not theirs:
            return name
        if name is not None and name not in theirs:
            raise Refused(
                Reason.FORBIDDEN, f"expected one of this key's policies ({', '.join(theirs)}), got {quoted(name)}"
            )
        return name or theirs[0]

    def take(self) -> None:
        """Let one more request in; Refused where the tenant has too many."""
        tenant = self.tenant
        if tenant.max_in_flight is not None and self.in_flight >= tenant.max_in_flight:
            raise Refused(
                Reason.TOO_MANY, f"expected at most {tenant.max_in_flight} requests of this key at once; wait", 0.1
            )
        wait = 0.0 if self._bucket is None else self._bucket.take()
        if wait:
            rate = tenant.requests_per_second
            raise Refused(Reason.TOO_MANY, f"expected at most {rate:g} requests a second of this key; wait", wait)


class Tenants:
    """The accounts, by key. A file that is damaged while the gateway runs changes nothing, and is named in the log."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._accounts: dict[str, Account] = {}
        self._by_hash: dict[str, Account] = {}
        self._looked, self._seen = time.monotonic(), self._mark()
        self._everybody = Account(EVERYBODY)
        if path is not None:
            self._take(read(path))

    def account(self, key: str | None) -> Account:
        """The account of who holds this key; Refused where nobody does."""
        if self._path is None:
            return self._everybody
        self._look()
        account = self._by_hash.get(hashed(key)) if key else None
        if account is None:
            got = "another" if key else "none"
            raise Refused(Reason.UNAUTHENTICATED, f"expected your key as 'Authorization: Bearer KEY', got {got}")
        return account

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or self._path is None:
            return
        self._looked, mark = now, self._mark()
        if mark != self._seen:
            self._seen = mark
            try:
                self._take(read(self._path))
                log.info("the tenants were read again")
            except InvalidKeys as exc:
                log.error("the tenants stay as they were: %s", exc)

    def _mark(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path) if self._path else None
        except OSError:
            status = None
        return (0, 0, 0) if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)

    def _take(self, by_hash: dict[str, Tenant]) -> None:
        kept: dict[str, Account] = {}
        for tenant in by_hash.values():
            old = self._accounts.get(tenant.name)
            kept[tenant.name] = (
                old if old is not None and old.tenant == tenant else kept.get(tenant.name, Account(tenant))
            )
        self._accounts = kept
        self._by_hash = {one: kept[tenant.name] for one, tenant in by_hash.items()}
