"""Where checkpoints come from."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import tiny_guard
import torch

from verdictree import families
from verdictree.errors import UnsupportedGuard
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.answer_frame import end_tokens
from verdictree_export.prompts.compilation import compile_prompts

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


def test_weightless_checkpoint_has_everything_but_weights(folder):
    """An inspection that saw another prompt or another end of the turn than the export would mislead."""
    weightless, whole = checkpoint.load_weightless(str(folder)), checkpoint.load(str(folder))
    assert {parameter.device.type for parameter in weightless.model.parameters()} == {"meta"}
    assert weightless.max_positions == whole.max_positions
    assert end_tokens(weightless) == end_tokens(whole)
    family = families.recognize(weightless.tokenizer.chat_template)
    assert family.name == "llama-guard-3"
    assert (
        compile_prompts(weightless, family, [tiny_guard.POLICY]).prompts
        == compile_prompts(whole, family, [tiny_guard.POLICY]).prompts
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
    ids=["a loop", "a recursion"],
)
def test_a_template_without_end_is_named(folder, monkeypatch, template):
    """A chat template is a stranger's program: an export that never ends says nothing about it."""
    monkeypatch.setattr(checkpoint, "_TEMPLATE_SECONDS", 0.5)
    guard = checkpoint.load_weightless(str(folder))
    guard.tokenizer.chat_template = template
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(UnsupportedGuard, match="expected a chat template that ends"):
        guard.render([{"role": "user", "content": "x"}])
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("load", [checkpoint.load, checkpoint.load_weightless])
def test_a_checkpoints_own_code_is_never_run(folder, tmp_path, monkeypatch, load):
    """transformers asks on standard input whether it may run it; an export in a pipeline would hang, or be told yes."""
    copy = shutil.copytree(folder, tmp_path / "c")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    with pytest.raises(UnsupportedGuard, match="code of its own; that is never run here"):
        load(str(copy))
    assert not (tmp_path / "ran").exists()
