"""A GGUF file's tokenizer: what transformers reads of it, and what it leaves out and yet changes the tokens."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, pre_tokenizers

from verdictree_export.checkpoints.gguf_settings import metadata
from verdictree_export.checkpoints.source import Source

_CONTROL, _USER_DEFINED = 3, 4
_NAMED = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
# https://github.com/meta-llama/llama-models/blob/main/models/llama3/tokenizer.py
_LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def complete(source: Source, tokenizer: Any) -> None:
    """Give a tokenizer that transformers read from a GGUF file what it left out.

    Those are the control tokens and the added tokens, the end-of-turn token by its own name, and Llama 3's borders of
    words, in whose place it has GPT-2's.
    """
    settings = metadata(source)
    tokens, types = settings["tokenizer.ggml.tokens"], settings.get("tokenizer.ggml.token_type", [])
    known = tokenizer.added_tokens_decoder
    added = [
        AddedToken(token, normalized=False, special=kind == _CONTROL)
        for number, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind in (_CONTROL, _USER_DEFINED) and number not in known
    ]
    if added:
        tokenizer.add_tokens(added)
    for name, key in _NAMED.items():
        number = settings.get(f"tokenizer.ggml.{key}")
        if number is not None and number < len(tokens):
            setattr(tokenizer, name, tokens[number])
    if settings.get("tokenizer.ggml.pre") == "llama-bpe":
        backend = tokenizer.backend_tokenizer
        words = pre_tokenizers.Split(Regex(_LLAMA_3_WORDS), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.model.ignore_merges = True  # a word that is a token is one, whatever merges lead to it
