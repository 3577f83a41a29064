"""`verdictree serve`: a model repository becomes a running server, in the foreground."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import click

from verdictree.cli.repository_option import repository_option

_PATIENCE = 10.0  # seconds that a running server may be silent before it counts as failed


@click.command()
@repository_option
@click.option("--release", "number", type=click.IntRange(min=1), help="Pin this release first; default: the pinned.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the endpoints listen.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any free port.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free port.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, show_default=True, help="0: any free.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="The gRPC endpoint's certificate (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key (PEM).")
@click.option("--tls-client-root", type=click.Path(path_type=Path), help="Accept only clients signed by this root.")
@click.option("--admin-key-file", type=click.Path(path_type=Path), help="Lock the control API with the key in it.")
@click.option(
    "--response-cache-mb",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Memory for the answers to conversations that come again; 0: none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON line.")
def serve(
    repository: Path,
    number: int | None,
    address: str,
    grpc_port: int,
    http_port: int,
    metrics_port: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_client_root: Path | None,
    admin_key_file: Path | None,
    response_cache_mb: int,
    as_json: bool,
) -> None:
    """Serve the repository's pinned release until SIGTERM or SIGINT."""
    if (tls_certificate is None) != (tls_key is None) or (tls_client_root and not tls_certificate):
        raise click.UsageError("--tls-certificate and --tls-key go together, --tls-client-root only with both")
    from verdictree.admin_key import read_admin_key
    from verdictree.startup import prepare
    from verdictree_serving import GrpcTls, TritonServer

    admin_key = read_admin_key(admin_key_file) if admin_key_file else None
    number = prepare(repository, number)
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    tls = GrpcTls(tls_certificate, tls_key, tls_client_root) if tls_certificate and tls_key else None
    server = TritonServer(
        repository,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        address=address,
        tls=tls,
        admin_key=admin_key,
        response_cache_mb=response_cache_mb,
    )
    with server:
        endpoints = {"grpc": server.grpc_address, "http": server.http_address, "metrics": server.metrics_address}
        if as_json:
            click.echo(json.dumps({"release": number, "pid": server.pid, **endpoints}))
        else:
            click.echo(f"release {number} is ready: " + ", ".join(f"{k} {v}" for k, v in endpoints.items()))
        while not stopped.wait(timeout=1.0):
            if not server.is_ready():
                server.wait_ready(timeout=_PATIENCE)  # raises, with the reason, where it does not come back
