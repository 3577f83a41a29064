"""Checkpoint folders as people have them: half downloaded, changed, of another kind. One line with the fix for each."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import tiny_guard
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from verdictree.errors import UnsupportedGuard
from verdictree_export.prompts import checkpoint

pytestmark = pytest.mark.slow

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
TEMPLATE = "chat_template.jinja"


def edited(name=CONFIG, **changes):
    """A change of a JSON file's values; None removes one."""

    def change(folder):
        said = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))

    return change


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def cut(name, length):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def gone(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def a_folder(name):
    return lambda folder: [(folder / name).unlink(), (folder / name).mkdir()]


def a_dead_link(name):
    return lambda folder: [(folder / name).unlink(), (folder / name).symlink_to("nowhere")]


def tensors(change):
    """A change of the weights."""

    def changed(folder):
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return changed


def sharded(change):
    def changed(folder):
        model = checkpoint.load(str(folder)).model
        (folder / WEIGHTS).unlink()
        model.save_pretrained(folder, max_shard_size="40KB")
        change(folder)

    return changed


def second_shard(change):
    return sharded(lambda folder: change(sorted(folder.glob("model-*"))[1]))


class Print:
    def __reduce__(self):
        return print, ("a checkpoint's own code has run",)


def pickled(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"x": Print()}, folder / "pytorch_model.bin")


def adapter(folder):
    (folder / CONFIG).unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "meta-llama/Llama-Guard-3-8B"}')


def adapter_beside(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "meta-llama/Llama-Guard-3-8B"}')


def below(folder):
    shutil.copytree(folder, folder / "main")
    (folder / CONFIG).unlink()


def quantized(**said):
    return edited(quantization_config=said)


def card(folder):
    quantized(quant_method="gptq", bits=4)(folder)
    (folder / "README.md").write_text("---\nbase_model: meta-llama/Llama-Guard-3-8B\n---\n# A guard\n")


# Seen by `inspect` and by `export`.
BAD = {
    "a Git LFS pointer for the tokenizer": (written(TOKENIZER, POINTER), "a Git LFS pointer; run `git lfs pull`"),
    "a Git LFS pointer for the configuration": (written(CONFIG, POINTER), "a Git LFS pointer"),
    "a Git LFS pointer for the generation config": (written("generation_config.json", POINTER), "a Git LFS pointer"),
    "a Git LFS pointer for the template": (written(TEMPLATE, POINTER), "a Git LFS pointer"),
    "a web page": (written(TOKENIZER, b"<!DOCTYPE html>\n<html>Log in</html>"), "a web page; log in"),
    "half a tokenizer": (cut(TOKENIZER, 5000), "expected JSON in .*tokenizer.json"),
    "an empty tokenizer": (cut(TOKENIZER, 0), "an empty file"),
    "a tokenizer of nothing": (written(TOKENIZER, b"{}"), "the tokenizer of"),
    "no tokenizer": (gone(TOKENIZER), "expected a tokenizer in .*, got none"),
    "a folder for the tokenizer": (a_folder(TOKENIZER), "got a folder"),
    "a link that leads nowhere": (a_dead_link(TOKENIZER), "the link leads nowhere"),
    "a sentencepiece tokenizer alone": (
        lambda folder: [gone(TOKENIZER)(folder), written("tokenizer.model", b"\n\x0e\n\x05<unk>")(folder)],
        "expected .*tokenizer.*; .*tokenizer.json",
    ),
    "an unknown tokenizer": (edited("tokenizer_config.json", tokenizer_class="OwnTokenizer"), "OwnTokenizer"),
    "no configuration": (gone(CONFIG), "expected a checkpoint's folder with config.json"),
    "the checkpoint in a folder below": (below, "give '.*main'"),
    "half a configuration": (cut(CONFIG, 100), "expected JSON in .*config.json"),
    "a list as configuration": (written(CONFIG, b"[]"), "expected a JSON object"),
    "a configuration without end": (written(CONFIG, b"[" * 100_000), "nested without end"),
    "no model_type": (edited(model_type=None), "expected a model_type"),
    "an unknown model_type": (edited(model_type="llama9"), "that transformers .* has, got .*'llama9'"),
    "words for numbers": (edited(hidden_size="many"), "the configuration|the weights"),
    "no heads": (edited(num_attention_heads=0), "ZeroDivisionError"),
    "a billion layers": (edited(num_hidden_layers=10**9), "expected 1 to 1000 layers"),
    "an end of turn that is a word": (edited("generation_config.json", eos_token_id="<eot>"), "expected token ids"),
    "too few embeddings": (edited(vocab_size=100), "at most 100 tokens|of shape"),
    "code of its own": (edited(auto_map={"AutoModelForCausalLM": "own.Model"}), "own; that is never run here"),
    "a tokenizer's own code": (
        edited("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", None]}),
        "remove auto_map from tokenizer_config.json",
    ),
    "a classifier": (edited(architectures=["LlamaForSequenceClassification"]), "expected a causal LM, which answers"),
    "an encoder": (edited(model_type="bert", architectures=["BertForMaskedLM"]), "expected a causal LM"),
    "an encoder that does not say so": (edited(model_type="deberta-v2", architectures=None), "with a causal LM"),
    "an encoder and a decoder": (edited(model_type="t5", architectures=["T5ForConditionalGeneration"]), "a causal LM"),
    "an adapter": (adapter, "export meta-llama/Llama-Guard-3-8B with --adapter"),
    "an adapter beside a checkpoint": (adapter_beside, "if its weights are merged, remove adapter_config.json"),
    "GPTQ": (quantized(quant_method="gptq", bits=4), "quantized by gptq, .*; give the unquantized checkpoint"),
    "GPTQ, with a card": (card, "give the unquantized checkpoint, here meta-llama/Llama-Guard-3-8B,"),
    "AWQ": (quantized(quant_method="awq", bits=4), "quantized by awq"),
    "FP8 of its own": (quantized(quant_method="fp8", activation_scheme="dynamic"), "quantized by fp8"),
    "an unknown quantization": (quantized(quant_method="new"), "quantized by new"),
    "a quantization without a name": (quantized(bits=4), "quantized by an unnamed method"),
}
# Seen by `export` alone.
BAD_WEIGHTS = {
    "a Git LFS pointer": (written(WEIGHTS, POINTER), "a Git LFS pointer; run `git lfs pull`"),
    "half a file": (cut(WEIGHTS, 5000), "as its header says, got 5000; the download was cut off"),
    "half a header": (cut(WEIGHTS, 50), "expected a whole safetensors file"),
    "an empty file": (cut(WEIGHTS, 0), "an empty file"),
    "eight bytes": (cut(WEIGHTS, 8), "does not begin with their header"),
    "a web page": (written(WEIGHTS, b"<html>"), "a web page"),
    "bytes": (written(WEIGHTS, bytes(range(256)) * 10), "does not begin with their header"),
    "a folder": (a_folder(WEIGHTS), "got a folder"),
    "a link that leads nowhere": (a_dead_link(WEIGHTS), "the link leads nowhere"),
    "none": (gone(WEIGHTS), "expected model.safetensors, .*got no file with weights"),
    "of another name": (lambda folder: (folder / WEIGHTS).rename(folder / "model.fp16.safetensors"), "model.fp16.safe"),
    "pickled objects": (pickled, "which are never run: give the checkpoint with safetensors"),
    "a shard is missing": (second_shard(Path.unlink), "got 3: model-00002-of-00004.safetensors is missing"),
    "a shard is a pointer": (second_shard(lambda shard: shard.write_bytes(POINTER)), "a Git LFS pointer"),
    "half a shard": (second_shard(lambda shard: shard.write_bytes(shard.read_bytes()[:900])), "was cut off"),
    "an index is a pointer": (sharded(written(f"{WEIGHTS}.index.json", POINTER)), "a Git LFS pointer"),
    "half an index": (sharded(cut(f"{WEIGHTS}.index.json", 100)), "expected JSON in"),
    "an index of nothing": (sharded(written(f"{WEIGHTS}.index.json", b"{}")), "expected a weight_map"),
    "an index that leads elsewhere": (
        sharded(written(f"{WEIGHTS}.index.json", b'{"weight_map": {"a": "../b"}}')),
        "expected files of its own folder",
    ),
    "a norm is missing": (tensors(lambda all_: all_.pop("model.norm.weight")), "lacks model.norm.weight"),
    "the head is missing": (tensors(lambda all_: all_.pop("lm_head.weight")), "lacks lm_head.weight"),
    "a layer is missing": (edited(num_hidden_layers=3), "lacks model.layers.2.* and 6 more"),
    "a layer too many": (edited(num_hidden_layers=1), "also has model.layers.1"),
    "a bias too many": (
        tensors(lambda all_: all_.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})),
        "also has model.layers.0.self_attn.q_proj.bias",
    ),
    "another shape": (edited(intermediate_size=128), "of two models"),
    "not a number": (
        tensors(lambda all_: all_["model.norm.weight"].fill_(float("nan"))),
        "NaN or infinity in model.norm",
    ),
    "quantized without a word": (
        tensors(lambda all_: all_.update({"model.layers.0.mlp.up_proj.qweight": torch.zeros(4, 4)})),
        "whose weights are quantized",
    ),
    "not quantized as said": (  # without the package that reads such weights they are not looked at
        quantized(quant_method="bitsandbytes", load_in_8bit=True),
        "got others|expected the package bitsandbytes",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_guard.write_checkpoint(tmp_path_factory.mktemp("whole") / "checkpoint")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "checkpoint"))


def refused(copy, change, said, load):
    change(copy)
    with pytest.raises(UnsupportedGuard, match=said) as error:
        load(str(copy))
    text = str(error.value)
    assert text.startswith("expected ") and "; " in text and "\n" not in text and len(text) < 900
    return text


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_is_no_whole_checkpoint_says_what_mends_it(name, copy, monkeypatch, capsys):
    """Seven kinds of library exceptions came out of files that people have."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    for load in (checkpoint.load, checkpoint.load_weightless):
        one = Path(shutil.copytree(copy, copy.parent / load.__name__, symlinks=True))
        refused(one, *BAD[name], load)
    said = capsys.readouterr()
    assert not said.out.strip() and not said.err.strip(), "libraries chatter"


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_are_not_the_checkpoints_say_what_mends_them(name, copy, capsys):
    """transformers fills what is missing with random numbers: a guard that answers nonsense in the right form."""
    refused(copy, *BAD_WEIGHTS[name], checkpoint.load)
    said = capsys.readouterr()
    assert "has run" not in said.out and not said.err.strip()


@pytest.mark.parametrize(
    ("command", "name"),
    [*(("inspect", name) for name in BAD), *(("export", name) for name in [*BAD, *BAD_WEIGHTS])],
)
def test_a_command_says_it_in_one_line(command, name, copy, tmp_path):
    """A page of a library's warnings around the one line hides it."""
    change = (BAD.get(name) or BAD_WEIGHTS[name])[0]
    change(copy)
    options = ["--repository", str(tmp_path / "models")] if command == "export" else []
    result = tiny_guard.run_command(command, copy, tmp_path, *options)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.stderr.splitlines() if line.strip() and "0% -:--:--" not in line]
    assert len(lines) == 1 and lines[0].startswith("Error: expected "), result.stderr
    assert not (tmp_path / "models" / "guard_lm").exists()


PLACES = {
    "nothing": ("/no/such/folder", "folder, hub id or GGUF file, got .*, which does not exist"),
    "a home that is none": ("~/no-such-checkpoint", "which does not exist"),
    "a file within": ("{folder}/config.json", "give its folder: "),
    "weights": ("{folder}/model.safetensors", "give its folder: "),
    "a file of another kind": ("/etc/passwd", "got the file"),
    "an empty file": ("/dev/null", "file"),
    "a name that is too long": ("x/" + "y" * 5000, "that can be read"),
    "a zero byte": ("a\0b", "does not exist"),
    "nothing at all": ("", "config.json"),
    "no GGUF": ("guard.gguf", "expected a GGUF file, got 'guard.gguf', which does not exist"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_is_no_checkpoint_says_what_to_give(name, folder):
    """What was typed is often one folder off."""
    given, said = PLACES[name]
    with pytest.raises(UnsupportedGuard, match=said):
        checkpoint.load_weightless(given.format(folder=folder))


@pytest.mark.parametrize("content", [b"", POINTER, b"<html>", b"GGUF", b"GGUF\x03\0\0\0", b"x" * 99], ids=repr)
def test_a_gguf_file_that_is_none_says_so(content, tmp_path):
    """A GGUF file is one download, and as often half of one."""
    (tmp_path / "guard.gguf").write_bytes(content)
    with pytest.raises(UnsupportedGuard, match=r"^expected .*; "):
        checkpoint.load(str(tmp_path / "guard.gguf"))


def test_a_folder_is_found_however_it_is_written(folder, monkeypatch):
    """A release is named by its checkpoint's folder: not by a slash, a dot or a tilde."""
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    for typed in (f"{folder}/", ".", "~/checkpoint", "../checkpoint"):
        assert checkpoint.load_weightless(typed).name == "checkpoint"


FILES = (WEIGHTS, CONFIG, TOKENIZER, "tokenizer_config.json", "generation_config.json", TEMPLATE)


@settings(max_examples=80)
@given(st.data())
def test_a_damaged_file_is_loaded_or_refused(folder, tmp_path_factory, data):
    """What a disk or a download does to a file is none of the exceptions that a library knows."""
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("damaged") / "checkpoint"))
    path = copy / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, min(len(content), 4000) - 1) | st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "flip", "overwrite", "pointer"]))
    if kind == "cut":
        del content[at:]
    elif kind == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "overwrite":
        content[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    path.write_bytes(POINTER if kind == "pointer" else content)
    for load in (checkpoint.load, checkpoint.load_weightless):
        with contextlib.suppress(UnsupportedGuard):
            guard = load(str(copy))
            assert guard.encode("safe")
            guard.render([{"role": "user", "content": "hello"}], categories={})
