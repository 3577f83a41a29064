"""The text of a model's `config.pbtxt`: what releases change in it. All else, comments included, stays as it is.

Edited as text, since a parsed and printed one would lose the comments, which say why each number is what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from verdictree.wire import QUEUED_SHARE

_STEP = re.compile(r'(model_name: "(\w+)"\s+model_version: )(\d+)')
_BATCH_SIZE = re.compile(r"^max_batch_size: *(\d+)", re.MULTILINE)
_TRITONS_QUEUE = re.compile(r"""dynamic_batching \{\s+default_queue_policy \{
    timeout_action: REJECT
    default_timeout_microseconds: (\d+)
    allow_timeout_override: true
    max_queue_size: (\d+)
  \}
\}""")
_MARGINALS_QUEUE = "dynamic_batching { default_queue_policy { timeout_action: REJECT max_queue_size: 1024 } }"
_NO_QUEUE = "dynamic_batching { }"
_LIMITS = """parameters {{ key: "queue_size", value: {{ string_value: "{size}" }} }}
parameters {{ key: "queue_seconds", value: {{ string_value: "{seconds:g}" }} }}"""
_QUEUE_SECONDS = re.compile(r'(key: "queue_seconds", value: \{ string_value: ")[^"]*')
_TOKEN_COUNTS = re.compile(r'(name: "token_counts", data_type: TYPE_INT32, dims: \[ )2(?= \])')
_VERSIONS = re.compile(r"(versions: \[ )([\d, ]+)(?= \])")


def versions(config: str) -> tuple[int, ...]:
    """The versions that the model loads, in order; none where it does not name them."""
    match = _VERSIONS.search(config)
    return tuple(sorted(map(int, match.group(2).split(",")))) if match else ()


def with_versions(config: str, numbers: Iterable[int]) -> str:
    """The configuration, loading these versions."""
    return _VERSIONS.sub(rf"\g<1>{', '.join(map(str, sorted(set(numbers))))}", config)


def pinned_to(ensemble: str, number: int, steps: Mapping[str, int]) -> str:
    """An ensemble's configuration as release `number`, whose composing models have these versions."""
    stepped = _STEP.sub(lambda match: f"{match[1]}{steps.get(match[2], number)}", ensemble)
    return with_versions(stepped, [number])


def batch_size(config: str) -> int | None:
    """Its `max_batch_size`; None where it has none."""
    match = _BATCH_SIZE.search(config)
    return int(match.group(1)) if match else None


def with_batch_size(config: str, size: int) -> str:
    """The configuration with this `max_batch_size`."""
    return _BATCH_SIZE.sub(f"max_batch_size: {size}", config)


def with_windows(config: str) -> str:
    """The configuration with room for the places of windows, which those of old repositories lack."""
    return _TOKEN_COUNTS.sub(r"\g<1>-1", config)


def with_own_queue(config: str, deadline: float | None = None) -> str:
    """The configuration with the limits of the line in which requests wait for a step.

    They wait for three quarters of `deadline` seconds at most, which leaves time to compute (None: as long as is
    configured). The configurations of old repositories have a queue of Triton's instead.
    """
    config = config.replace(_MARGINALS_QUEUE, _NO_QUEUE)
    if match := _TRITONS_QUEUE.search(config):
        limits = _LIMITS.format(size=match[2], seconds=1e-6 * int(match[1]))
        config = config.replace(match[0], f"{_NO_QUEUE}\n{limits}")
    if deadline is None:
        return config
    seconds = QUEUED_SHARE * deadline
    if _QUEUE_SECONDS.search(config):
        return _QUEUE_SECONDS.sub(rf"\g<1>{seconds:g}", config)
    return f"{config.rstrip()}\n{_LIMITS.format(size=64, seconds=seconds)}\n"
