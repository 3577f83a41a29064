"""What adapters of releases of format 1 import by this name; see docs/compatibility.md."""

from verdictree.releases.release import Release

load = Release.load

__all__ = ["load"]
