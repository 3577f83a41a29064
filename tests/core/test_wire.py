"""Names that stand in code and in the committed configurations: both must say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from verdictree import wire
from verdictree.releases.release import GRAPH_MODEL, MARGINALS_MODEL, TOKENIZER_MODEL
from verdictree.releases.repository import ENSEMBLE, ROUTER
from verdictree.runtime.graph_io import INPUTS, OUTPUTS

REPOSITORY = Path(__file__).parents[2] / "model_repository"


def config(model: str):
    return text_format.Parse((REPOSITORY / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def names(tensors) -> set[str]:
    return {tensor.name for tensor in tensors}


@pytest.mark.parametrize("model", [ENSEMBLE, ROUTER])
def test_what_callers_see(model):
    """A client that asks by another name gets an error that names neither the client nor the configuration."""
    assert (names(config(model).input), names(config(model).output)) == ({wire.REQUEST}, {wire.VERDICT})
    assert config(ENSEMBLE).name == wire.MODEL


def test_graph_tensors():
    """The export names the graph's tensors by the same tuples; a name that differs would fail at load at best."""
    graph = config(GRAPH_MODEL)
    made_by_triton = {name for one in graph.batch_input for name in one.target_name}  # where each row ends
    assert (names(graph.input) | made_by_triton, names(graph.output)) == (set(INPUTS), set(OUTPUTS))
    assert names(graph.input) <= names(config(TOKENIZER_MODEL).output)
    assert {*OUTPUTS, "prefix_id"} <= names(config(MARGINALS_MODEL).input)
    assert names(config(TOKENIZER_MODEL).input) == {wire.REQUEST}
    assert names(config(MARGINALS_MODEL).output) == {wire.VERDICT}


def test_ensemble_hands_on_what_the_steps_name():
    """A map to a tensor that a step lacks is found when the ensemble loads: after an upgrade, on a live server."""
    for step in config(ENSEMBLE).ensemble_scheduling.step:
        inner = config(step.model_name)
        assert set(step.input_map) == names(inner.input) and set(step.output_map) <= names(inner.output)
