"""A GGUF file's settings: what transformers reads of its metadata, and what it leaves out and yet changes the numbers.

The keys are llama.cpp's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch

from verdictree.errors import UnsupportedGuard
from verdictree.text.visible import quoted
from verdictree_export.checkpoints.source import Source

_ROPE_FACTORS = "rope_freqs.weight"
# Without one of these transformers takes a number that is usual for the architecture.
_NEEDED = ("block_count", "embedding_length", "attention.head_count")
# Metadata that transformers leaves at its defaults, and what they are called in a configuration.
_LEFT_OUT = {
    "attention.key_length": "head_dim",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base_swa": "rope_local_base_freq",
}
_BY_HEADS = {
    ("gemma2", 46),
    ("gemma3", 62),
}  # the 27B models: their queries are scaled by the embedding's share of a head


def configuration(source: Source) -> Any:
    """The configuration of a GGUF file's model. Raises UnsupportedGuard for an architecture that is not read."""
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    settings = metadata(source)
    architecture = settings.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in GGUF_SUPPORTED_ARCHITECTURES:
        raise UnsupportedGuard(
            f"expected a GGUF file of an architecture that transformers reads, got {source.given!r} of "
            f"{quoted(architecture)}; give the checkpoint in safetensors"
        )
    needed = (*(f"{architecture}.{key}" for key in _NEEDED), "tokenizer.ggml.tokens")
    lacking = [key for key in needed if key not in settings]
    if lacking:
        raise UnsupportedGuard(
            f"expected {lacking[0]} in the metadata of {source.given!r}, got none; download it again, or give "
            "another file"
        )
    config = AutoConfig.from_pretrained(source.place, **source.options)
    for name, value in _left_out(source, architecture, settings).items():
        setattr(config, name, value)
    return config


def metadata(source: Source) -> dict[str, Any]:
    """All of a GGUF file's metadata."""
    return {name: field.contents() for name, field in _reader(source.gguf).fields.items()}


def apply_rope_factors(source: Source, model: Any) -> None:
    """Divide the model's rotary frequencies by the factors that a GGUF file carries as a tensor (Llama 3.1 and later).

    Raises UnsupportedGuard for another tensor of the file that the model has no place for.
    """
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    tensors = {tensor.name: tensor for tensor in _reader(source.gguf).tensors}
    known = {*get_gguf_hf_weights_map(model), _ROPE_FACTORS, "output.weight"}
    left = [name for name in tensors if name not in known and not re.search(r"_exps\.|_shexp\.", name)]
    if left:
        raise UnsupportedGuard(
            f"expected tensors of a {model.config.model_type} model in {source.given!r}, got also {left[0]}, which "
            "transformers does not read; give the checkpoint in safetensors"
        )
    if _ROPE_FACTORS in tensors:
        rotary = model.get_decoder().rotary_emb
        factors = torch.tensor(tensors[_ROPE_FACTORS].data).reshape(rotary.inv_freq.shape)
        rotary.inv_freq = rotary.inv_freq / factors
        rotary.original_inv_freq = rotary.inv_freq


@contextmanager
def read_once() -> Iterator[None]:
    """Within it a GGUF file is parsed once, where transformers alone parses it four times.

    With 128,000 tokens that takes a quarter of a minute each time.
    """
    parse = gguf.GGUFReader
    parsed: dict[str, Any] = {}

    def reader(path: str) -> Any:
        if path not in parsed:
            parsed[path] = parse(path)
        return parsed[path]

    gguf.GGUFReader = reader
    try:
        yield
    finally:
        gguf.GGUFReader = parse


def _reader(path: Path | None) -> Any:
    return gguf.GGUFReader(str(path))


def _left_out(source: Source, architecture: str, settings: dict[str, Any]) -> dict[str, Any]:
    own = {key.removeprefix(f"{architecture}."): value for key, value in settings.items()}
    found = {name: own[key] for key, name in _LEFT_OUT.items() if key in own}
    if architecture in ("gemma2", "gemma3"):
        by_heads = (architecture, own["block_count"]) in _BY_HEADS
        share = own["embedding_length"] // own["attention.head_count"]
        found["query_pre_attn_scalar"] = share if by_heads else own["attention.key_length"]
    if architecture == "mistral":
        found["sliding_window"] = own.get("attention.sliding_window")
    return found | _rope_scaling(source, own)


def _rope_scaling(source: Source, own: dict[str, Any]) -> dict[str, Any]:
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {}
    scaling: dict[str, Any] = {"rope_type": kind, "factor": float(factor)}
    if kind == "yarn":
        original = own.get("rope.scaling.original_context_length")
        return {"rope_scaling": scaling | ({"original_max_position_embeddings": original} if original else {})}
    if kind == "linear":
        return {"rope_scaling": scaling}
    raise UnsupportedGuard(
        f"expected linear or yarn rope scaling in {source.given!r}, got {quoted(kind)}; give the checkpoint in "
        "safetensors"
    )
