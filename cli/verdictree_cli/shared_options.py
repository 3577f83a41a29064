"""The options that several commands have."""

from pathlib import Path
from typing import get_args

import click

from verdictree.conversation import Truncate
from verdictree_export.defaults import FAMILY

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
