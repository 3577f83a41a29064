"""`verdictree serve`: a model repository becomes a running server, in the foreground."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree import wire
from verdictree_cli.shared_options import repository_option
from verdictree_serving import settings

if TYPE_CHECKING:
    from verdictree_serving import TritonServer

_PORT = click.IntRange(0, 65535)
_FILE = click.Path(path_type=Path)


@click.command()
@repository_option
@click.option("--release", "number", type=click.IntRange(min=1), help="Pin this release first; default: the pinned.")
@click.option("--address", default=wire.HOST, show_default=True, help="Where the endpoints listen.")
@click.option("--insecure", is_flag=True, help="Listen on other addresses than loopback without encryption.")
@click.option("--grpc-port", type=_PORT, default=wire.GRPC_PORT, show_default=True, help="0: any free port.")
@click.option("--http-port", type=_PORT, help="Open Triton's own HTTP endpoint too; 0: on any free port.")
@click.option(
    "--metrics-port", type=_PORT, default=wire.METRICS_PORT, show_default=True, help="Triton's; 0: any free port."
)
@click.option(
    "--health-port",
    type=_PORT,
    help="/ready, /live and the supervisor's /metrics; 0: any free port; "
    f"default: {wire.HEALTH_PORT}, or a free one if it is taken.",
)
@click.option("--tls-certificate", type=_FILE, help="The gRPC endpoint's certificate (PEM).")
@click.option("--tls-key", type=_FILE, help="The certificate's key (PEM).")
@click.option("--tls-client-root", type=_FILE, help="Accept only clients signed by this root.")
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
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=settings.DRAIN_SECONDS,
    show_default=True,
    help="How long a stop waits for the requests in flight.",
)
@click.option(
    "--self-check-seconds",
    type=click.FloatRange(min=0),
    default=settings.SELF_CHECK_SECONDS,
    show_default=True,
    help="How often a golden conversation is asked; 0: never.",
)
@click.option("--log-file", type=_FILE, help="Triton's log, appended; default: in the repository's state folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON line.")
def serve(repository: Path, number: int | None, as_json: bool, **options: Any) -> None:
    """Serve the repository's pinned release until SIGTERM or SIGINT.

    The first signal refuses new requests and answers those in flight; a second one ends at once.
    """
    _check(options)
    from verdictree.releases.startup import prepare
    from verdictree.releases.state_folder import only_server
    from verdictree_serving.server.ports import Ports, listening
    from verdictree_serving.supervision.health import Health, served
    from verdictree_serving.supervision.self_check import SelfCheck
    from verdictree_serving.supervision.supervisor import Supervisor

    stopped = _stopped_by_signals()
    health, address = Health(), options["address"]
    Ports(options["http_port"], options["grpc_port"], options["metrics_port"]).resolve(address)  # or say which is taken
    with only_server(repository), listening(address, options["health_port"], wire.HEALTH_PORT) as listener:
        server = _server(repository, options)

        def started(release: int) -> None:
            _tell(server, release, f"{address}:{listener.getsockname()[1]}", as_json)

        wanted = iter([number])  # pinned at the first start; a later one serves what is pinned by then
        supervisor = Supervisor(
            server,
            lambda: prepare(repository, next(wanted, None), options["deadline"]),
            health,
            SelfCheck(repository, health, options["self_check_seconds"]),
            lambda line: click.echo(line, err=True),
            stopped,
        )
        with served(health, listener):
            supervisor.run(started, options["drain_seconds"])


def _stopped_by_signals() -> threading.Event:
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
    from verdictree_serving import GrpcTls, TritonServer

    certificate, key, key_file = options["tls_certificate"], options["tls_key"], options["admin_key_file"]
    return TritonServer(
        repository,
        http_port=options["http_port"],
        grpc_port=options["grpc_port"],
        metrics_port=options["metrics_port"],
        address=options["address"],
        tls=GrpcTls(certificate, key, options["tls_client_root"]) if certificate else None,
        admin_key=read_admin_key(key_file) if key_file else None,
        response_cache_mb=options["response_cache_mb"],
        log_path=options["log_file"] or state_folder(repository) / "triton.log",
    )


def _tell(server: TritonServer, release: int, health_address: str, as_json: bool) -> None:
    endpoints = {"grpc": server.grpc_address, "metrics": server.metrics_address}
    if server.http_address:
        endpoints["http"] = server.http_address
    endpoints["health"] = health_address
    if as_json:
        click.echo(json.dumps({"release": release, "pid": server.pid, **endpoints}))
    else:
        click.echo(f"release {release} is ready: " + ", ".join(f"{k} {v}" for k, v in endpoints.items()))


def _check(options: dict[str, Any]) -> None:
    """Refuse what would leave a door open that the other options close."""
    from verdictree_serving.server.ports import is_loopback

    certificate, key, client_root = (options[f"tls_{name}"] for name in ("certificate", "key", "client_root"))
    if (certificate is None) != (key is None) or (client_root and not certificate):
        raise click.UsageError("--tls-certificate and --tls-key go together, --tls-client-root only with both")
    if client_root and options["http_port"] is not None:
        raise click.UsageError(
            "--http-port opens an endpoint that asks nobody for a certificate, beside --tls-client-root, which asks "
            "everybody for one; leave one of the two out"
        )
    plain = "--http-port has no encryption" if options["http_port"] is not None else "gRPC is not encrypted"
    is_plain = not certificate or options["http_port"] is not None
    if is_plain and not options["insecure"] and not is_loopback(options["address"]):
        raise click.UsageError(
            f"{plain}, and {options['address']} is no loopback address: anyone on the network could read "
            "conversations; give --tls-certificate and --tls-key, or say --insecure"
        )
