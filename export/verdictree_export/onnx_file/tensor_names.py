"""What tensors are called in an exported graph, besides its inputs and outputs."""

from __future__ import annotations

POLICIES = "policies."  # how the names of what policies decide begin
LOG_PRUNING_THRESHOLD = f"{POLICIES}log_epsilon"
EXIT_THRESHOLD = f"{POLICIES}exit.threshold"
EXIT_STATES = "exit.states"  # the hidden states at the early exit
EXIT_FEATURES = "exit.features"  # what its probe reads of them
ANY_STAYING = "any_staying"  # whether any request goes on after the early exit


_CACHES = "trunk."


def is_cache(name: str) -> bool:
    """Whether a tensor is keys or values of the prefill pass."""
    return name.startswith(_CACHES)


def cache_names(num_layers: int) -> list[str]:
    """The names of the prefill pass's keys and values, layer by layer."""
    return [f"{_CACHES}{kind}_{layer}" for layer in range(num_layers) for kind in ("keys", "values")]


def any_live(depth: int) -> str:
    """The name of whether any path is expanded at this search depth."""
    return f"any_live_{depth}"


def all_left(output: str) -> str:
    """The name of an output as it is where no request goes on after the early exit."""
    return f"{output}/all_left"


def without(output: str, depth: int) -> str:
    """The name of an output as it is where none is."""
    return f"{output}/without_{depth}"
