"""The options that several commands have."""

from pathlib import Path
from typing import get_args

import click

from verdictree.conversation import Truncate
from verdictree.releases.early_exit import MAX_MISSED
from verdictree_export.defaults import EXIT_CONFIDENCE, FAMILY

repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="The model repository.",
)
truncate_option = click.option(
    "--truncate",
    type=click.Choice(get_args(Truncate)),
    help="Of a conversation that is too long: judge its last tokens (head is cut off), or all of it, in windows.",
)
family_option = click.option(
    "--family", "family_name", default=FAMILY, show_default=True, help="The guard family; auto: by the template."
)
policies_option = click.option(
    "--policy",
    "policies",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="A policy YAML, or the name of one that ships, as embedded; repeatable, the first is the default.",
)
max_missed_option = click.option(
    "--max-missed",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=MAX_MISSED,
    show_default=True,
    help="Of the conversations that the guard would not simply allow, what share may leave early.",
)
confidence_option = click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=EXIT_CONFIDENCE,
    show_default=True,
    help="With what probability that holds.",
)
