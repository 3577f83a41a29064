"""Keys: who is let in, to what, how often, and what a slip in the file does."""

from __future__ import annotations

import os
import time

import pytest

from verdictree_gateway import tenants
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.tenants import Bucket, InvalidKeys, Tenants, hashed, new_key

KEY, HASH = new_key()
OTHER, OTHER_HASH = new_key()
FILE = f"""
tenants:
  - name: chat
    keys: [{HASH}]
    policies: [children, embedded]
    max_in_flight: 2
  - name: batch
    keys: [{OTHER_HASH}]
    requests_per_second: 10
    burst: 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(tenants, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "tenants.yaml"
    path.write_text(FILE)
    return path


def refused(call, *arguments) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value


def test_a_key_opens_its_account(file):
    """Another key, a hash in place of its key, or none at all opens one."""
    found = Tenants(file)
    assert found.account(KEY).tenant.name == "chat" and found.account(OTHER).tenant.name == "batch"
    for wrong in (None, "", HASH, KEY + "x", KEY[:-1], new_key()[0]):
        exc = refused(found.account, wrong)
        assert exc.reason is Reason.UNAUTHENTICATED and KEY not in str(exc) and HASH not in str(exc)


def test_without_a_file_everybody_may():
    """A first start that asks for keys which nobody has."""
    account = Tenants(None).account(None)
    account.take()
    assert account.policy(None) is None and account.policy("any") == "any"


def test_a_policy_of_others_is_refused(file):
    """A tenant is judged by another one's policy; or by the release's default, which is not theirs."""
    account = Tenants(file).account(KEY)
    assert account.policy(None) == "children" and account.policy("embedded") == "embedded"
    assert refused(account.policy, "adult").reason is Reason.FORBIDDEN


def test_a_tenants_rate_is_kept(file):
    """One tenant takes the machine; or, after a pause, gets more than a burst."""
    account = Tenants(file).account(OTHER)
    for _ in range(3):
        account.take()
    exc = refused(account.take)
    assert exc.reason is Reason.TOO_MANY and 0 < exc.retry_after <= 0.1
    time.sleep(exc.retry_after)
    account.take()


def test_a_bucket_never_holds_more_than_its_burst(monkeypatch):
    """A night without requests pays for an hour of twice the rate."""
    now = [0.0]
    monkeypatch.setattr(tenants.time, "monotonic", lambda: now[0])
    bucket = Bucket(rate=2.0, burst=4.0)
    assert [bucket.take() for _ in range(4)] == [0.0] * 4
    assert bucket.take() == 0.5
    now[0] = 1e6
    assert sum(bucket.take() == 0.0 for _ in range(100)) == 4


def test_too_many_at_once_are_refused(file):
    """A limit that counts what was answered long ago, or never counts down."""
    account = Tenants(file).account(KEY)
    account.in_flight = 2
    assert refused(account.take).reason is Reason.TOO_MANY
    account.in_flight = 1
    account.take()


def test_the_file_is_read_again(file, caplog):
    """A leaked key works until the next start; a slip locks everybody out; a new file resets who is throttled."""
    found = Tenants(file)
    busy = found.account(OTHER)
    file.write_text(FILE.replace(HASH, hashed("a-new-one")))
    os.utime(file, (1, 1))
    assert found.account("a-new-one").tenant.name == "chat"
    assert refused(found.account, KEY).reason is Reason.UNAUTHENTICATED
    assert found.account(OTHER) is busy, "whose tenant is the same keeps what they have used"
    file.write_text("tenants: [")
    assert found.account("a-new-one").tenant.name == "chat" and "stay as they were" in caplog.text
    file.unlink()
    assert found.account("a-new-one")


@pytest.mark.parametrize(
    "text, said",
    [
        ("tenants: [", "got: "),
        ("[]", "Expected `object`"),
        ("tenants: [{name: a, keys: [secret]}]", "keys"),
        ("tenants: [{name: a, kyes: []}]", "unknown field `kyes`"),
        ("tenants: [{name: a, requests_per_second: 0}]", "requests_per_second"),
        ("tenants: [{name: a, requests_per_second: .nan}]", "requests_per_second"),
        (f"tenants: [{{name: a, keys: [{HASH}]}}, {{name: b, keys: [{HASH}]}}]", "twice"),
        ("tenants: [{name: a}, {name: a}]", "expected each tenant once"),
    ],
)
def test_a_slip_in_the_file_is_named(tmp_path, text, said):
    """A misspelt limit that is none."""
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(InvalidKeys, match=said):
        Tenants(path)
    with pytest.raises(InvalidKeys, match="give its path"):
        Tenants(tmp_path / "missing")
