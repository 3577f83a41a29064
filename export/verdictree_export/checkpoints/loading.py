"""Load a checkpoint's model and tokenizer, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch

from verdictree.errors import UnsupportedGuard
from verdictree.text.visible import quoted
from verdictree_export.checkpoints import gguf_settings, gguf_tokenizer, quantization
from verdictree_export.checkpoints.complete_weights import check_complete, check_finite
from verdictree_export.checkpoints.declared import Declared, declared
from verdictree_export.checkpoints.folder import check_folder, check_no_adapter
from verdictree_export.checkpoints.library_errors import told
from verdictree_export.checkpoints.source import Source
from verdictree_export.checkpoints.weight_files import tensor_names


def load_whole(source: Source, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model, its weights as `dtype`, and the tokenizer.

    Raises UnsupportedGuard for what cannot be loaded, and for weights that are not those of the model, or not finite.
    """
    with gguf_settings.read_once():
        return _whole(source, dtype)


def load_without_weights(source: Source) -> tuple[Any, Any]:
    """The model on torch's meta device, and the tokenizer. Raises UnsupportedGuard as `load_whole` does."""
    with gguf_settings.read_once():
        return _without_weights(source)


def _whole(source: Source, dtype: torch.dtype) -> tuple[Any, Any]:
    said = _looked_at(source, with_weights=True)
    if said.quantization and source.folder:
        quantization.check_quantized(said.quantization, source.given, tensor_names(source.folder))
    tokenizer = _tokenizer(source)
    with told(source.given, "the weights"):
        model = _model(source, said, dtype)
    _check_kind(source, model, tokenizer)
    check_finite(source.given, model)
    return model, tokenizer


def _without_weights(source: Source) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, GenerationConfig

    said = _looked_at(source, with_weights=False)
    tokenizer = _tokenizer(source)
    with told(source.given, "the configuration"):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(said.config, trust_remote_code=False)
        with suppress(OSError):  # without the file the configuration names the end of the turn; broken, it was refused
            model.generation_config = GenerationConfig.from_pretrained(source.place)
    _check_kind(source, model, tokenizer)
    return model, tokenizer


def _looked_at(source: Source, with_weights: bool) -> Declared:
    if source.folder:
        check_folder(source.folder, with_weights)
    elif source.gguf:
        check_no_adapter(source.gguf.parent)
    return declared(source)


def _tokenizer(source: Source) -> Any:
    from transformers import AutoTokenizer

    with told(source.given, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source.place, **source.options)
        if source.gguf:
            gguf_tokenizer.complete(source, tokenizer)
    if not tokenizer.is_fast:
        raise UnsupportedGuard(
            f"expected a tokenizer with tokenizer.json, got {source.given!r} with {type(tokenizer).__name__}; give a "
            "checkpoint with tokenizer.json"
        )
    return tokenizer


def _model(source: Source, said: Declared, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    options = source.options | quantization.loading_options(said.quantization)
    found: AbstractContextManager[dict[str, Any]] = _among_others(said.config) if said.is_part else nullcontext({})
    with found as names:
        model, info = AutoModelForCausalLM.from_pretrained(
            source.place, config=said.config, dtype=dtype, output_loading_info=True, **options, **names
        )
    check_complete(source.given, info["missing_keys"], info["unexpected_keys"], said.is_part)
    if said.quantization:
        model = quantization.dequantized(model, dtype)
    if source.gguf:
        gguf_settings.apply_rope_factors(source, model)
    return model


@contextmanager
def _among_others(config: Any) -> Iterator[dict[str, Any]]:
    """Let a text model find its weights in a checkpoint of more; yields what `from_pretrained` is told besides.

    There they are called `language_model.…` or, in newer ones, `model.language_model.…`. transformers strips the first
    where a class has it as its prefix, as those have that are published with such a checkpoint.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    owner = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    before, owner.base_model_prefix = owner.base_model_prefix, "language_model"
    try:
        yield {"key_mapping": {r"^model\.language_model\.": "model."}}
    finally:
        owner.base_model_prefix = before


def _check_kind(source: Source, model: Any, tokenizer: Any) -> None:
    """Raise UnsupportedGuard for a model that is no stack of layers, or with another's tokenizer or end of turn."""
    if not len(getattr(model.get_decoder(), "layers", None) or ()):
        raise UnsupportedGuard(
            f"expected a decoder of attention layers, got {source.given!r}, a {type(model).__name__}; give a "
            "guard of another architecture"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise UnsupportedGuard(
            f"expected a tokenizer of at most {rows} tokens, as the embeddings of {source.given!r} have, got "
            f"{tokenizer.vocab_size}; they are of two models: download the checkpoint again"
        )
    ends = model.generation_config.eos_token_id
    if not all(isinstance(end, int) for end in (ends if isinstance(ends, list | tuple) else [ends]) if end is not None):
        raise UnsupportedGuard(
            f"expected token ids as eos_token_id of {source.given!r}, got {quoted(ends)}; download "
            "generation_config.json and config.json again"
        )
