"""How tests are drawn and dealt.

Generated tests draw the same examples in every run, unless an open-ended search is asked for (`make fuzz`).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Another machine, or a busy one, must not find another failure: what is drawn is fixed, and no time limit.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "fuzz",
    parent=settings.get_profile("ci"),
    derandomize=False,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1000")),
    print_blob=True,
)
settings.load_profile("ci")  # --hypothesis-profile comes after


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers, one starts all the servers, so that no two measure time against each other.

    Of the others each takes whole files: the tests of a file share what they set up.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("servers" if item.get_closest_marker("server") else str(item.path)))
