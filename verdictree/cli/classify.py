"""`verdictree classify`: one conversation, by a running server."""

from __future__ import annotations

import sys
import time
from typing import Any

import click


@click.command()
@click.argument("text", required=False)
@click.option("--conversation", type=click.File("rb"), help='A JSON file with "messages", or - for standard input.')
@click.option("--policy", help="The policy's name; default: the release's first.")
@click.option("--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole verdict as JSON.")
def classify(text: str | None, conversation: Any, policy: str | None, url: str, deadline: float, as_json: bool) -> None:
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
        verdict = client.classify(request, policy=policy)
        milliseconds = 1000 * (time.perf_counter() - start)
    if as_json:
        sys.stdout.buffer.write(verdict.to_json() + b"\n")
    else:
        Console().print(table([(request.messages[-1].content, verdict, milliseconds)]))
