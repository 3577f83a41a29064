"""What a gateway is started with; its processes get it as JSON."""

from __future__ import annotations

import msgspec

from verdictree import wire
from verdictree.releases.early_exit import EXIT_CHECK_SHARE, MAX_MISSED


class Tls(msgspec.Struct, frozen=True):
    """Files (PEM) of the public ports: certificate and key, and the root that clients must be signed by, if any."""

    certificate: str
    key: str
    client_root: str | None = None


class TritonTls(msgspec.Struct, frozen=True):
    """How the servers behind are known, and the gateway to them: files (PEM), read when a process starts.

    root: what their certificates must be signed by, None: the roots that gRPC ships. certificate and key: the gateway's
    own, for servers that ask for one. name: in all their certificates, None: each address' host.
    """

    root: str | None = None
    certificate: str | None = None
    key: str | None = None
    name: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway: where it listens, whom it asks, whom it lets in.

    triton: gRPC addresses of the servers behind, asked in turn; triton_tls None: in plain text. http_port None: the
    usual one, or a free one if it is taken. repository: the model repository whose policies are
    listed, None: none are. tenants: the file of those, None: everybody is let in. deadline: seconds that a request may
    take where its caller says nothing, and at most. max_in_flight: requests that are let through at once.
    log_requests: a line a request, without texts. audit_*: the file of the record
    of verdicts, the share of verdicts that is recorded, and whether their redacted texts are; see `observing/audit.py`.
    exit_check_share: of the requests that left the guard early, what share is judged in full too; exit_max_missed: of
    all alerts, what share may leave before exits are switched off; see `observing/exits.py`.
    otlp: the URL of a collector of OpenTelemetry's, None: no traces.
    """

    triton: tuple[str, ...]
    triton_tls: TritonTls | None = None
    address: str = wire.HOST
    grpc_port: int = wire.GRPC_PORT
    http_port: int | None = None
    tls: Tls | None = None
    repository: str | None = None
    tenants: str | None = None
    deadline: float = wire.DEADLINE
    max_in_flight: int = 128
    log_requests: bool = False
    audit_file: str | None = None
    audit_sample: float = 1.0
    audit_texts: bool = False
    exit_check_share: float = EXIT_CHECK_SHARE
    exit_max_missed: float = MAX_MISSED
    otlp: str | None = None
