"""Encryption of the gRPC endpoint."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GrpcTls:
    """PEM files that encrypt gRPC; with ``client_root``, clients must present a certificate that it signed."""

    certificate: Path
    key: Path
    client_root: Path | None = None

    def arguments(self) -> list[str]:
        """Return Triton's command-line options."""
        options = ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_root is not None:
            options += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_root}"]
        return options
