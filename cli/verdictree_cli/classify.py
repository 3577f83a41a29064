"""`verdictree classify`: one conversation, by a running server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from verdictree import wire
from verdictree.conversation import Truncate
from verdictree_cli.connection_options import api_key, tls, tls_options, url_option
from verdictree_cli.shared_options import truncate_option

_FILE = click.Path(allow_dash=True, path_type=Path)


@click.command()
@click.argument("text", required=False)
@click.option("--conversation", type=_FILE, help='A JSON file with "messages", or - for standard input.')
@click.option("--policy", help="The policy's name; default: the release's first.")
@truncate_option
@click.option("--exact", is_flag=True, help="Let the guard read all of it, where it may leave early.")
@url_option
@tls_options
@click.option("--api-key-file", type=click.Path(path_type=Path), help="A file with your API key, if one is asked for.")
@click.option(
    "--deadline", type=click.FloatRange(min=0, min_open=True), default=wire.DEADLINE, show_default=True, help="Seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole verdict as JSON.")
def classify(
    text: str | None,
    conversation: Path | None,
    policy: str | None,
    truncate: Truncate | None,
    exact: bool,
    url: str,
    deadline: float,
    api_key_file: Path | None,
    as_json: bool,
    **connection: Any,
) -> None:
    """Classify TEXT (one user message) or a conversation, by a running server."""
    from verdictree.conversation import Conversation, Message
    from verdictree.conversation_file import read_one
    from verdictree_cli.display import table
    from verdictree_cli.terminal import Terminal, say_json
    from verdictree_client import GuardClient

    if (text is None) == (conversation is None):
        raise click.UsageError("give either TEXT or --conversation FILE")
    request = Conversation((Message("user", text or ""),)) if conversation is None else read_one(conversation)
    with GuardClient(url, deadline=deadline, tls=tls(connection), api_key=api_key(api_key_file)) as client:
        start = time.perf_counter()
        verdict = client.classify(request, policy=policy, truncate=truncate, exact=exact)
        milliseconds = 1000 * (time.perf_counter() - start)
    if as_json:
        say_json(verdict.to_json())
    else:
        Terminal().print(table([(request.messages[-1].content, verdict, milliseconds)]))
