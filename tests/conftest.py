"""How generated tests draw: the same examples in every run, unless an open-ended search is asked for (`make fuzz`)."""

from __future__ import annotations

import os

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
