"""The command line: `verdictree export | serve | classify`. Each command imports its room when it is called."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from verdictree.errors import VerdictreeError

_PATIENCE = 10.0  # seconds that a running server may be silent before it counts as failed

_REPOSITORY = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="The model repository.",
)


class _Commands(click.Group):
    """Says every error that Verdictree raises on purpose in one line, with exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VerdictreeError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"this command needs the package {error.name!r}; install verdictree[client,export,serve]"
            ) from error


@click.group(cls=_Commands)
@click.version_option(package_name="verdictree")
def main() -> None:
    """Turn a guard LLM into a calibrated multi-label classifier and serve it."""


@main.command()
@click.argument("checkpoint")
@click.option("--family", "family_name", required=True, help="The guard family: llama-guard-3 or instruct.")
@click.option("--policy", type=click.Path(path_type=Path), required=True, help="The policy YAML.")
@_REPOSITORY
@click.option("--adapter", type=click.Path(path_type=Path), help="A LoRA adapter's folder, merged before export.")
@click.option("--precision", default="fp32", show_default=True, help="The graph's precision.")
@click.option("--release", "number", type=click.IntRange(min=1), help="The release's number; default: the next free.")
@click.option("--max-labels", type=click.IntRange(1, 8), default=3, show_default=True, help="Labels followed.")
@click.option(
    "--epsilon", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Least path probability followed."
)
@click.option(
    "--width", type=click.IntRange(1, 256), default=16, show_default=True, help="Most paths followed a length."
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Longest conversation.")
def export(
    checkpoint: str,
    family_name: str,
    policy: Path,
    repository: Path,
    adapter: Path | None,
    precision: str,
    number: int | None,
    max_labels: int,
    epsilon: float,
    width: int,
    max_tokens: int,
) -> None:
    """Export CHECKPOINT (a folder, hub id, GGUF file, or "embedded") as a release of the model repository."""
    from verdictree import policy as policies
    from verdictree.exploration import Exploration

    taxonomy = policies.load(policy)
    from verdictree_export.exporter import export_release
    from verdictree_export.repository import pinned

    with _progress_bars() as progress:
        release = export_release(
            checkpoint,
            family_name,
            taxonomy,
            repository,
            number=number,
            adapter=adapter,
            precision=precision,
            exploration=Exploration(max_labels, epsilon, width),
            max_tokens=max_tokens,
            progress=progress,
        )
    parity = release.parity
    click.echo(
        f"release {release.number}: {release.checkpoint}, {len(release.policy.categories)} categories, "
        f"{release.precision}; largest |Δ log p| to the checkpoint {parity.max_abs_log_prob_difference:.1e} "
        f"over {parity.num_nodes} nodes; the ensemble serves release {pinned(repository)}"
    )


@main.command()
@_REPOSITORY
@click.option("--release", "number", type=click.IntRange(min=1), help="Pin this release first; default: the pinned.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the endpoints listen.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any free port.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free port.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, show_default=True, help="0: any free.")
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="The gRPC endpoint's certificate (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The certificate's key (PEM).")
@click.option("--tls-client-root", type=click.Path(path_type=Path), help="Accept only clients signed by this root.")
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
    as_json: bool,
) -> None:
    """Serve the repository's pinned release until SIGTERM or SIGINT."""
    if (tls_certificate is None) != (tls_key is None) or (tls_client_root and not tls_certificate):
        raise click.UsageError("--tls-certificate and --tls-key go together, --tls-client-root only with both")
    from verdictree import release as releases
    from verdictree_export import repository as repositories
    from verdictree_serving import GrpcTls, TritonServer

    number = number or repositories.pinned(repository)
    releases.load_verified(repository, number)
    repositories.pin(repository, number)
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    tls = GrpcTls(tls_certificate, tls_key, tls_client_root) if tls_certificate and tls_key else None
    server = TritonServer(
        repository, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, address=address, tls=tls
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


@main.command()
@click.argument("text", required=False)
@click.option("--conversation", type=click.File("rb"), help='A JSON file with "messages", or - for standard input.')
@click.option("--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole verdict as JSON.")
def classify(text: str | None, conversation: Any, url: str, deadline: float, as_json: bool) -> None:
    """Classify TEXT (one user message) or a conversation, by a running server."""
    from rich.console import Console

    from verdictree.conversation import Conversation, Message, parse
    from verdictree.display import table
    from verdictree_client import GuardClient

    if (text is None) == (conversation is None):
        raise click.UsageError("give either TEXT or --conversation FILE")
    request = Conversation((Message("user", text),)) if text is not None else parse(conversation.read())
    with GuardClient(url, deadline=deadline) as client:
        start = time.perf_counter()
        verdict = client.classify(request)
        milliseconds = 1000 * (time.perf_counter() - start)
    if as_json:
        sys.stdout.buffer.write(verdict.to_json() + b"\n")
    else:
        Console().print(table([(request.messages[-1].content, verdict, milliseconds)]))


@contextmanager
def _progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:

        def begin(step: str, parts: int) -> Callable[[int], None]:
            task = bars.add_task(step, total=parts)
            return lambda done: bars.advance(task, done)

        yield begin
