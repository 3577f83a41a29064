"""GGUF files of several architectures, against the checkpoints that their tensors were taken from."""

from __future__ import annotations

import contextlib

import gguf
import pytest
import tiny_gguf
import tiny_guard
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from verdictree.errors import UnsupportedGuard
from verdictree_export import inspection
from verdictree_export.prompts import checkpoint

pytestmark = pytest.mark.slow

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 4.0}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 12, "tie_word_embeddings": True}
CASES = {
    "llama": (LlamaConfig, "llama", {}),
    "llama, heads of their own size": (LlamaConfig, "llama", {"head_dim": 16}),
    "llama, linear rope scaling": (LlamaConfig, "llama", {"rope_scaling": LINEAR}),
    "llama 3.1, rope factors": (LlamaConfig, "llama", {"rope_scaling": LLAMA_3_ROPE, "max_position_embeddings": 1024}),
    "mistral": (MistralConfig, "llama", {"sliding_window": None, "head_dim": 8}),
    "qwen 2": (Qwen2Config, "qwen2", {}),
    "qwen 2, tied head": (Qwen2Config, "qwen2", {"tie_word_embeddings": True}),
    "qwen 3": (Qwen3Config, "qwen3", {"head_dim": 8}),
    "qwen 3, large heads": (Qwen3Config, "qwen3", {"head_dim": 32}),
    "gemma 2": (Gemma2Config, "gemma2", {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}),
    "gemma 3": (Gemma3TextConfig, "gemma3", {**GEMMA, "num_hidden_layers": 7}),
    "gemma 3, linear rope scaling": (Gemma3TextConfig, "gemma3", {**GEMMA, "rope_scaling": LINEAR}),
}
# Qwen 2's borders of words, as in its tokenizer.json.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = (
    "unsafe\nS10,S1 12345 hello<|eot|>",
    "  Check 3.14 the\r\n\r\nmessages, don't we?\tCategories: 日本語 🙂 e\u0301",
    "unsafely<|header|>assistant<|/header|>\n\nsafe",
)


def ids():
    return torch.arange(5, 45)[None]


def logits(model):
    with torch.inference_mode():
        return model.eval()(ids()).logits


@pytest.mark.parametrize("name", CASES)
def test_a_gguf_file_is_the_checkpoint_that_it_was_made_of(name, tmp_path):
    """transformers leaves settings of a GGUF file at its own defaults: a guard computes, and is another one."""
    config, architecture, options = CASES[name]
    folder = tiny_guard.write_checkpoint(tmp_path / "c", config, **options)
    extra = {}
    original = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    if options.get("rope_scaling") is LLAMA_3_ROPE:
        plain = LlamaConfig(**{**tiny_guard.SIZES, "vocab_size": 9})
        unscaled = AutoModelForCausalLM.from_config(plain).model.rotary_emb.inv_freq
        extra["+rope_freqs.weight"] = unscaled / original.model.rotary_emb.inv_freq
    path = tiny_gguf.write_gguf(tmp_path / "guard.gguf", folder, architecture, **extra)
    loaded = checkpoint.load(str(path))
    torch.testing.assert_close(logits(loaded.model), logits(original), atol=2e-5, rtol=1e-5)
    assert loaded.max_positions == original.config.max_position_embeddings
    weightless = checkpoint.load_weightless(str(path))
    settings = [one.model.config.to_dict() | {"dtype": None} for one in (weightless, loaded)]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_files_tokenizer_is_the_one_that_it_was_made_of(architecture, tmp_path):
    """transformers splits Llama 3's numbers as GPT-2 does, knows three control tokens of Qwen, and swaps names."""
    kind = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}[architecture]
    folder = tiny_guard.write_checkpoint(tmp_path / "c", kind)
    original = AutoTokenizer.from_pretrained(folder)
    original.add_tokens([AddedToken("unsafe", normalized=False)])  # as Qwen's <think>: no control token, yet one token
    if architecture.startswith("qwen"):
        words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        original.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
        original.backend_tokenizer.normalizer = normalizers.NFC()
    original.save_pretrained(folder)
    path = tiny_gguf.write_gguf(tmp_path / "guard.gguf", folder, architecture)
    loaded = checkpoint.load_weightless(str(path))
    for text in TEXTS:
        assert loaded.encode(text) == original(text, add_special_tokens=False)["input_ids"], text
    assert (loaded.tokenizer.eos_token, loaded.tokenizer.bos_token) == ("<|eot|>", "<|begin|>")
    assert loaded.template == original.chat_template
    seen = [inspection.inspect(str(one), "auto", [tiny_guard.POLICY]) for one in (path, folder)]
    assert seen[0].prompts == seen[1].prompts and seen[0].tree == seen[1].tree


def test_a_quantized_gguf_file_is_dequantized(tmp_path):
    """Its release holds the weights that llama.cpp would compute with."""
    folder = tiny_guard.write_checkpoint(tmp_path / "c")
    path = tiny_gguf.write_gguf(tmp_path / "guard.gguf", folder, "llama", GGMLQuantizationType.Q8_0)
    original = AutoModelForCausalLM.from_pretrained(folder)
    for parameter in original.parameters():
        if parameter.dim() == 2:
            stored = quants.quantize(parameter.detach().numpy(), GGMLQuantizationType.Q8_0)
            parameter.data = torch.from_numpy(quants.dequantize(stored, GGMLQuantizationType.Q8_0))
    torch.testing.assert_close(logits(checkpoint.load(str(path)).model), logits(original), atol=2e-5, rtol=1e-5)


BAD = {
    "another architecture": ({"general__architecture": "granite"}, "an architecture that transformers reads, got"),
    "no architecture": ({"general__architecture": None}, "an architecture that transformers reads, got .* of None"),
    "a tensor of another model": ({"+blk.0.attn_sinks.weight": torch.ones(4)}, "got also blk.0.attn_sinks.weight"),
    "a tensor is missing": ({"+blk.1.ffn_up.weight": None}, "lacks model.layers.1.mlp.up_proj.weight"),
    "another shape": ({"+blk.1.ffn_up.weight": torch.ones(4, 32)}, "of two models"),
    "unknown rope scaling": ({"llama__rope__scaling__type": "longrope"}, "linear or yarn rope scaling"),
    "no tokens": ({"tokenizer__ggml__tokens": None}, "expected tokenizer.ggml.tokens in the metadata"),
    "no merges": ({"tokenizer__ggml__merges": None, "tokenizer__ggml__scores": None}, "the tokenizer of"),
    "no layers said": ({"llama__block_count": None}, "expected llama.block_count in the metadata"),
    "no way back from its quantization": ({"quantization": GGMLQuantizationType.Q8_K}, "Q8_K"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_gguf_file_that_is_not_read_says_why(name, tmp_path):
    """What transformers leaves out of a GGUF file, it leaves out without a word."""
    changes, said = BAD[name]
    folder = tiny_guard.write_checkpoint(tmp_path / "c", intermediate_size=256, hidden_size=256)
    path = tiny_gguf.write_gguf(tmp_path / "guard.gguf", folder, "llama", **changes)
    with pytest.raises(UnsupportedGuard, match=said) as refused:
        checkpoint.load(str(path))
    assert "\n" not in str(refused.value) and "; " in str(refused.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf")
    return tiny_gguf.write_gguf(place / "guard.gguf", tiny_guard.write_checkpoint(place / "c"), "llama")


def test_a_gguf_file_is_parsed_once(whole, monkeypatch):
    """With the tokens of a real guard that takes a quarter of a minute, and transformers does it four times."""
    parsed, parse = [], gguf.GGUFReader

    def counted(path):
        parsed.append(path)
        return parse(path)

    monkeypatch.setattr(gguf, "GGUFReader", counted)
    checkpoint.load(str(whole))
    assert len(parsed) == 1 and gguf.GGUFReader is counted


@settings(max_examples=25)
@given(st.data())
def test_a_damaged_gguf_file_is_loaded_or_refused(whole, tmp_path_factory, data):
    """A byte that a disk has changed must not end in a traceback."""
    content = bytearray(whole.read_bytes())
    at = data.draw(st.integers(0, 30_000) | st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("d") / "guard.gguf"
    path.write_bytes(content)
    with contextlib.suppress(UnsupportedGuard):
        assert checkpoint.load(str(path)).encode("safe")
