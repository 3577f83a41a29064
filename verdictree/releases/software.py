"""Which version of this software is running."""

from importlib.metadata import version

VERSION = version("verdictree")
