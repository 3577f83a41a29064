"""The options of a gateway, as `verdictree serve` and `verdictree gateway` take them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verdictree import wire
from verdictree.releases.early_exit import EXIT_CHECK_SHARE, MAX_MISSED
from verdictree_serving import settings as defaults

if TYPE_CHECKING:
    from verdictree_gateway.settings import Settings, TritonTls

PORT = click.IntRange(0, 65535)
_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option("--address", default=wire.HOST, show_default=True, help="Where the gateway and the metrics listen."),
    click.option("--insecure", is_flag=True, help="Listen on other addresses than loopback without encryption."),
    click.option("--grpc-port", type=PORT, default=wire.GRPC_PORT, show_default=True, help="0: any free port."),
    click.option(
        "--http-port",
        type=PORT,
        help=f"/v1/moderations and more; 0: any free port; default: {wire.HTTP_PORT}, or a free one if it is taken.",
    ),
    click.option(
        "--health-port",
        type=PORT,
        help=f"/ready, /live, /metrics; 0: any free port; default: {wire.HEALTH_PORT}, or a free one if it is taken.",
    ),
    click.option("--tls-certificate", type=_FILE, help="The certificate of gRPC and HTTP (PEM)."),
    click.option("--tls-key", type=_FILE, help="The certificate's key (PEM)."),
    click.option("--tls-client-root", type=_FILE, help="Accept only clients signed by this root."),
    click.option("--tenants", type=_FILE, help="Let in only who holds a key of a tenant in this file."),
    click.option(
        "--max-in-flight", type=click.IntRange(min=1), default=128, show_default=True, help="Requests let in at once."
    ),
    click.option(
        "--processes",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Of the gateway, on its ports.",
    ),
    click.option("--log-requests", is_flag=True, help="Write a line a request to standard error, without texts."),
    click.option("--audit-file", type=_FILE, help="Write a JSON line a verdict, each process to a file beside this."),
    click.option("--audit-sample", type=click.FloatRange(0, 1), help="Which share of verdicts is written; default: 1."),
    click.option("--audit-texts", is_flag=True, help="Write last messages too, with addresses and numbers replaced."),
    click.option(
        "--exit-check-share",
        type=click.FloatRange(0, 1),
        default=EXIT_CHECK_SHARE,
        show_default=True,
        help="Of the requests that left the guard early, what share is judged in full too, to see what is missed.",
    ),
    click.option(
        "--exit-max-missed",
        type=click.FloatRange(0, 1),
        default=MAX_MISSED,
        show_default=True,
        help="Early exits are switched off when a larger share of alerts is seen to leave.",
    ),
    click.option("--otlp", metavar="URL", help="Send traces to this collector (OTLP over HTTP, port 4318 by habit)."),
    click.option(
        "--drain-seconds",
        type=click.FloatRange(min=0),
        default=defaults.DRAIN_SECONDS,
        show_default=True,
        help="How long a stop waits for the requests in flight.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON line."),
)


def gateway_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add them to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(options: Mapping[str, Any]) -> None:
    """Refuse what would leave a door open that other options close."""
    from verdictree_serving.server.ports import is_loopback

    certificate, key, client_root = (options[f"tls_{name}"] for name in ("certificate", "key", "client_root"))
    if (certificate is None) != (key is None) or (client_root and not certificate):
        raise click.UsageError("--tls-certificate and --tls-key go together, --tls-client-root only with both")
    if not certificate and not options["insecure"] and not is_loopback(options["address"]):
        raise click.UsageError(
            f"nothing is encrypted, and {options['address']} is no loopback address: anyone on the network could read "
            "conversations; give --tls-certificate and --tls-key, or say --insecure"
        )
    audit_file = options["audit_file"]
    if audit_file is None and (options["audit_texts"] or options["audit_sample"] is not None):
        raise click.UsageError("--audit-sample and --audit-texts go with --audit-file")
    if audit_file is not None and not os.access(audit_file.absolute().parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"--audit-file: nothing can be written in '{audit_file.absolute().parent}'")
    if (otlp := options["otlp"]) is not None:
        from verdictree_gateway.observing.tracing import is_installed

        if not otlp.startswith(("http://", "https://")):
            raise click.UsageError(f"--otlp: expected a URL such as http://localhost:4318, got {otlp!r}")
        if not is_installed():
            raise click.UsageError("--otlp needs OpenTelemetry; fix: pip install 'verdictree[tracing]'")


def settings(
    options: Mapping[str, Any],
    repository: Path | None,
    triton: tuple[str, ...],
    triton_tls: TritonTls | None = None,
) -> Settings:
    """What the options say; ServingError for TLS files that do not do, InvalidKeys for a file of no tenants."""
    from verdictree_gateway.settings import Settings, Tls
    from verdictree_gateway.tenants import read
    from verdictree_serving import GrpcTls

    if options["tenants"]:
        read(options["tenants"])

    certificate, key, root = (options[f"tls_{name}"] for name in ("certificate", "key", "client_root"))
    if certificate:
        GrpcTls(certificate, key, root).check()
    return Settings(
        triton=triton,
        triton_tls=triton_tls,
        address=options["address"],
        grpc_port=options["grpc_port"],
        http_port=options["http_port"],
        tls=Tls(str(certificate), str(key), str(root) if root else None) if certificate else None,
        repository=str(repository) if repository else None,
        tenants=str(options["tenants"]) if options["tenants"] else None,
        max_in_flight=options["max_in_flight"],
        log_requests=options["log_requests"],
        audit_file=str(options["audit_file"].absolute()) if options["audit_file"] else None,
        audit_sample=1.0 if options["audit_sample"] is None else options["audit_sample"],
        audit_texts=options["audit_texts"],
        exit_check_share=options["exit_check_share"],
        exit_max_missed=options["exit_max_missed"],
        otlp=options["otlp"],
    )
