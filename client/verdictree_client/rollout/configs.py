"""The ensemble `guard` as the server is to hold it: pinned to a release, or split between two by the router.

A load names the whole configuration, since Triton takes a configuration that it was given before for newer than the
file on disk. The number of requests that a model takes at once is the running server's: a file that was edited since
holds from the next start on, for all models together. The split is never written to disk, so a server that starts
serves the pinned release and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from verdictree import wire
from verdictree.errors import InvalidRelease
from verdictree.releases import model_config
from verdictree.releases.repository import CONFIG, ENSEMBLE, ROUTER


@dataclass(frozen=True)
class Split:
    """How live requests are split: fractions in [0, 1] that the candidate answers, and that it is asked about too."""

    canary: float = 0.0
    shadow: float = 0.0
    record_texts: bool = True

    def __bool__(self) -> bool:
        return self.canary > 0 or self.shadow > 0


@dataclass(frozen=True)
class Served:
    """What the server's `guard` is: pinned to `release`, or, where `candidate` is given, split between the two."""

    release: int
    candidate: int | None = None
    split: Split = Split()


def ensemble(repository: Path, name: str, batch_size: int) -> str:
    """An ensemble as it is on disk: pinned."""
    return _json(_read(repository, name, batch_size))


def routed(repository: Path, batch_size: int) -> str:
    """`guard` with the router in place of its steps."""
    config = _read(repository, ENSEMBLE, batch_size)
    steps = config.ensemble_scheduling.step
    last = steps[-1].output_map[wire.VERDICT]
    del steps[1:]
    steps[0].model_name, steps[0].model_version = ROUTER, 1
    steps[0].output_map.clear()
    steps[0].output_map[wire.VERDICT] = last
    config.response_cache.enable = False  # the key would not tell which of the two releases answered
    return _json(config)


def router(repository: Path, candidate: int, split: Split, record: str, batch_size: int) -> str:
    """The router with the parameters of a split."""
    config = _read(repository, ROUTER, batch_size)
    parameters = {
        "candidate": candidate,
        "canary_fraction": split.canary,
        "shadow_fraction": split.shadow,
        "salt": candidate,
        "record": record,
        "record_texts": "true" if split.record_texts else "false",
    }
    for name, value in parameters.items():
        config.parameters[name].string_value = str(value)
    return _json(config)


def with_versions(repository: Path, model: str, numbers: Iterable[int], batch_size: int) -> str:
    """A composing model's configuration with these versions instead of those on disk."""
    return _json(_read(repository, model, batch_size, numbers))


def served(guard: Mapping[str, Any] | None, router: Mapping[str, Any] | None) -> Served | None:
    """What `guard` is, from the configurations that the server holds; None where it has no guard."""
    if guard is None:
        return None
    number = int(guard["version_policy"]["specific"]["versions"][0])
    if guard["ensemble_scheduling"]["step"][0]["model_name"] != ROUTER or router is None:
        return Served(number)
    values = {name: parameter["string_value"] for name, parameter in router["parameters"].items()}
    split = Split(float(values["canary_fraction"]), float(values["shadow_fraction"]), values["record_texts"] == "true")
    return Served(number, int(values["candidate"]), split)


def _read(repository: Path, model: str, batch_size: int, numbers: Iterable[int] | None = None) -> Any:
    path = repository / model / CONFIG
    try:
        text = path.read_text()
        text = model_config.with_versions(text, numbers) if numbers else text
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as exc:
        raise InvalidRelease(f"expected a Triton configuration at '{path}', got {exc}; export a release again") from exc
    config.max_batch_size = batch_size
    return config


def _json(config: Any) -> str:
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True))
