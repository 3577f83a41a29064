"""HTML pages of what strangers wrote: everything is escaped, and what cannot be seen is shown."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from verdictree.text.visible import seen


def page_environment(folder: Path) -> Environment:
    """The templates of a folder; a name that a template misspells is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
