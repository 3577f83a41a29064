"""What Triton itself counts."""

from __future__ import annotations

import contextlib
import http.client

from verdictree_serving import TritonServer

_COUNTED = "nv_inference_count"


def answered(server: TritonServer) -> float:
    """How many requests the graph has answered so far: those that the step after it was given.

    Its own count holds those too that it refused.
    """
    host, _, port = server.metrics_address.partition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    ours = (line for line in lines if line.partition("{")[0] == _COUNTED and 'model="guard_marginals"' in line)
    return sum(float(line.rpartition(" ")[2]) for line in ours)
