"""`verdictree gateway`: the public door alone, before servers elsewhere; and keys for those who come through it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree import wire
from verdictree_cli.gateway_options import check, gateway_options, settings
from verdictree_cli.serve import stopped_by_signals

if TYPE_CHECKING:
    from verdictree_gateway.settings import TritonTls

_POLL_SECONDS = 0.2
_FILE = click.Path(path_type=Path)


@click.command()
@click.option("--triton", multiple=True, required=True, help="gRPC address of a server behind, HOST:PORT. Repeatable.")
@click.option(
    "--repository", type=click.Path(path_type=Path, exists=True), help="The model repository whose policies are listed."
)
@click.option("--triton-tls-root", type=_FILE, help="Ask the servers by TLS, trusting this root certificate (PEM).")
@click.option("--triton-tls-certificate", type=_FILE, help="The gateway's own, for servers that ask for one (PEM).")
@click.option("--triton-tls-key", type=_FILE, help="The key of --triton-tls-certificate (PEM).")
@click.option("--triton-tls-name", help="The name in the servers' certificates; default: the host of --triton.")
@gateway_options
def gateway(triton: tuple[str, ...], repository: Path | None, as_json: bool, **options: Any) -> None:
    """Let callers in to servers that listen at private addresses, until SIGTERM or SIGINT.

    The first signal refuses new requests and answers those in flight; a second one ends at once.
    """
    check(options)
    triton_tls = _triton_tls(triton, options)
    from verdictree.releases.repository import pinned
    from verdictree_gateway.workers import GatewayProcesses
    from verdictree_serving.server.ports import listening
    from verdictree_serving.supervision.health import Health, served

    if repository is not None:
        pinned(repository)
    stopped, address = stopped_by_signals(), options["address"]
    with (
        listening(address, options["health_port"], wire.HEALTH_PORT) as listener,
        GatewayProcesses(settings(options, repository, triton, triton_tls), options["processes"]) as processes,
    ):
        health = Health(processes.metrics)
        with served(health, listener):
            processes.start(triton)
            endpoints = {
                "grpc": processes.grpc_address,
                "http": processes.http_address,
                "health": f"{address}:{listener.getsockname()[1]}",
            }
            shown = ", ".join(f"{name} {where}" for name, where in endpoints.items())
            click.echo(json.dumps(endpoints) if as_json else f"the gateway is ready: {shown}")
            while not stopped.wait(_POLL_SECONDS):
                health.reason = processes.fault()
                if (happened := processes.replace_dead()) is not None:
                    click.echo(happened, err=True)
            health.reason = "draining"
            if not processes.drain(options["drain_seconds"]):
                click.echo(f"not everything in flight was answered within {options['drain_seconds']:g} s", err=True)


def _triton_tls(triton: tuple[str, ...], options: Mapping[str, Any]) -> TritonTls | None:
    """What is said of the way to the servers; InvalidSettings or ServingError for files that do not do."""
    root, certificate, key, name = (options[f"triton_tls_{what}"] for what in ("root", "certificate", "key", "name"))
    if not (root or certificate or key or name):
        return None
    from verdictree_client import TLS
    from verdictree_gateway.settings import TritonTls
    from verdictree_serving import GrpcTls

    if (certificate is None) != (key is None):
        raise click.UsageError("--triton-tls-certificate and --triton-tls-key go together")
    if len(triton) > 1 and name is None:
        raise click.UsageError("several --triton are known by one name: give --triton-tls-name, in all certificates")
    TLS(root, key, certificate)
    if certificate:
        GrpcTls(certificate, key).check()
    root, certificate, key = (str(path.absolute()) if path else None for path in (root, certificate, key))
    return TritonTls(root, certificate, key, name)


@click.command("gateway-key")
@click.argument("tenant")
def gateway_key(tenant: str) -> None:
    """Make a key for TENANT: print it, once, and what the file of tenants says of it."""
    from verdictree_gateway.tenants import new_key

    key, hashed = new_key()
    click.echo(f"the key, for {tenant} alone: {key}")
    click.echo(f"for the file of tenants:\n  - name: {json.dumps(tenant)}\n    keys: [{hashed}]")
