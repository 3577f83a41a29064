"""Encryption of the gRPC endpoint."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from verdictree_serving.errors import ServingError


@dataclass(frozen=True)
class GrpcTls:
    """PEM files that encrypt gRPC; with `client_root`, clients must present a certificate that it signed."""

    certificate: Path
    key: Path
    client_root: Path | None = None

    def check(self) -> None:
        """Raise `ServingError`, naming the file, for one that is missing or no PEM, and for a key of another's."""
        for path in filter(None, (self.certificate, self.key, self.client_root)):
            try:
                path.read_bytes()
            except OSError as exc:
                raise ServingError(f"expected a PEM file at {path}, got {exc.strerror or exc}") from exc
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError, TypeError) as exc:
            raise ServingError(
                f"expected a certificate in {self.certificate} and its key, not encrypted, in {self.key}; got {exc}"
            ) from exc
        if self.client_root is not None:
            try:
                context.load_verify_locations(self.client_root)
            except (ssl.SSLError, ValueError) as exc:
                raise ServingError(f"expected root certificates in {self.client_root}, got {exc}") from exc

    def arguments(self) -> list[str]:
        """Return Triton's command-line options."""
        options = ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_root is not None:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_root}"]
        return options


def _no_password() -> str:
    raise ValueError("an encrypted key, which nobody is there to open")  # without this, OpenSSL asks on the terminal
