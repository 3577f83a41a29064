"""Where checkpoints come from."""

from __future__ import annotations

import pytest
import tiny_guard
import torch

from verdictree import families
from verdictree_export import checkpoint, prompt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_guard.write_checkpoint(tmp_path_factory.mktemp("tiny-guard"))


def test_sharded_checkpoint_is_loaded_whole(folder, tmp_path):
    """A shard left out would leave random weights in its place, which answer something."""
    whole = checkpoint.load(str(folder))
    whole.model.save_pretrained(tmp_path, max_shard_size="40KB")
    whole.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    sharded = checkpoint.load(str(tmp_path)).model.state_dict()
    assert all(torch.equal(tensor, sharded[name]) for name, tensor in whole.model.state_dict().items())


def test_outline_has_everything_but_weights(folder):
    """An inspection that saw another prompt or another end of the turn than the export would mislead."""
    outline, whole = checkpoint.load_outline(str(folder)), checkpoint.load(str(folder))
    assert {parameter.device.type for parameter in outline.model.parameters()} == {"meta"}
    assert outline.max_positions == whole.max_positions
    assert prompt.end_tokens(outline) == prompt.end_tokens(whole)
    family = families.recognize(outline.tokenizer.chat_template)
    assert family.name == "llama-guard-3"
    assert prompt.split(outline, family, tiny_guard.POLICY) == prompt.split(whole, family, tiny_guard.POLICY)
