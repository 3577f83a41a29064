"""`verdictree serve`: a model repository becomes a running server, in the foreground."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree import wire
from verdictree_cli.gateway_options import PORT, check, gateway_options, settings
from verdictree_cli.shared_options import repository_option
from verdictree_serving import settings as defaults

if TYPE_CHECKING:
    from verdictree_serving import TritonServer

_FILE = click.Path(path_type=Path)
_OWN_PORTS = ("triton_grpc_port", "triton_http_port")


@click.command()
@repository_option
@click.option("--release", "number", type=click.IntRange(min=1), help="Pin this release first; default: the pinned.")
@gateway_options
@click.option(
    "--metrics-port", type=PORT, default=wire.METRICS_PORT, show_default=True, help="Triton's; 0: any free port."
)
@click.option("--triton-grpc-port", type=PORT, help="Open Triton's own gRPC port too, at --address; 0: any free port.")
@click.option("--triton-http-port", type=PORT, help="Open Triton's own HTTP port too, at --address; 0: any free port.")
@click.option(
    "--admin-key-file", type=_FILE, help="Lock the control API with the key in it; default: with a key made for you."
)
@click.option(
    "--response-cache-mb",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Memory for the answers to conversations that come again; 0: none.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0, min_open=True),
    help="How many seconds callers wait: a request is refused after three quarters of it in a queue. Default: as "
    "configured, 5.",
)
@click.option(
    "--self-check-seconds",
    type=click.FloatRange(min=0),
    default=defaults.SELF_CHECK_SECONDS,
    show_default=True,
    help="How often a golden conversation is asked; 0: never.",
)
@click.option("--log-file", type=_FILE, help="Triton's log, appended; default: in the repository's state folder.")
def serve(repository: Path, number: int | None, as_json: bool, **options: Any) -> None:
    """Serve the repository's pinned release until SIGTERM or SIGINT.

    The first signal refuses new requests and answers those in flight; a second one ends at once.
    """
    _check(options)
    from verdictree.releases.startup import prepare
    from verdictree.releases.state_folder import only_server
    from verdictree_gateway.workers import GatewayProcesses
    from verdictree_serving.server.ports import Ports, listening
    from verdictree_serving.supervision.health import Health, served
    from verdictree_serving.supervision.self_check import SelfCheck
    from verdictree_serving.supervision.supervisor import Supervisor

    stopped, address = stopped_by_signals(), options["address"]
    Ports(options["triton_http_port"], options["triton_grpc_port"] or 0, options["metrics_port"]).resolve(address)
    with (
        GatewayProcesses(settings(options, repository, ()), options["processes"]) as gateway,
        only_server(repository),
        listening(address, options["health_port"], wire.HEALTH_PORT) as listener,
    ):
        health = Health(gateway.metrics)
        server = _server(repository, options)

        def started(release: int) -> None:
            health_address = f"{address}:{listener.getsockname()[1]}"
            _tell(server, release, gateway.grpc_address, gateway.http_address, health_address, as_json)

        wanted = iter([number])  # pinned at the first start; a later one serves what is pinned by then
        supervisor = Supervisor(
            server,
            lambda: prepare(repository, next(wanted, None), options["deadline"]),
            health,
            SelfCheck(repository, health, options["self_check_seconds"]),
            lambda line: click.echo(line, err=True),
            stopped,
            gateway,
        )
        with served(health, listener):
            supervisor.run(started, options["drain_seconds"])


def stopped_by_signals() -> threading.Event:
    """What the first SIGTERM or SIGINT sets; a second one ends the process."""
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise SystemExit(1)
        stopped.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    return stopped


def _server(repository: Path, options: dict[str, Any]) -> TritonServer:
    from verdictree.releases.admin_key import read_admin_key
    from verdictree.releases.state_folder import state_folder
    from verdictree_serving import TritonServer

    key_file, grpc_port, http_port = (options[name] for name in ("admin_key_file", *_OWN_PORTS))
    is_open = grpc_port is not None or http_port is not None
    return TritonServer(
        repository,
        http_port=http_port,
        grpc_port=grpc_port or 0,
        metrics_port=options["metrics_port"],
        address=options["address"] if is_open else wire.HOST,
        metrics_address=options["address"],
        admin_key=read_admin_key(key_file) if key_file else None,
        response_cache_mb=options["response_cache_mb"],
        log_path=options["log_file"] or state_folder(repository) / "triton.log",
    )


def _tell(server: TritonServer, release: int, grpc: str, http: str, health: str, as_json: bool) -> None:
    endpoints = {"grpc": grpc, "http": http, "metrics": server.metrics_address, "health": health}
    if as_json:
        endpoints["triton"] = server.grpc_address
        if server.http_address:
            endpoints["triton_http"] = server.http_address
        click.echo(json.dumps({"release": release, "pid": server.pid, **endpoints}))
    else:
        click.echo(f"release {release} is ready: " + ", ".join(f"{k} {v}" for k, v in endpoints.items()))


def _check(options: dict[str, Any]) -> None:
    """Refuse what would leave a door open that the other options close."""
    from verdictree_serving.server.ports import is_loopback

    check(options)
    opened = [f"--{name.replace('_', '-')}" for name in _OWN_PORTS if options[name] is not None]
    if opened and options["tls_client_root"]:
        raise click.UsageError(
            f"{opened[0]} opens an endpoint that asks nobody for a certificate, beside --tls-client-root, which asks "
            "everybody for one; leave one of the two out"
        )
    if opened and options["tenants"]:
        raise click.UsageError(
            f"{opened[0]} opens an endpoint that asks nobody for a key, beside --tenants, which asks everybody for "
            "one; leave one of the two out"
        )
    if opened and not options["insecure"] and not is_loopback(options["address"]):
        raise click.UsageError(
            f"{opened[0]} has no encryption, and {options['address']} is no loopback address: anyone on the network "
            "could read conversations; leave it out, or say --insecure"
        )
