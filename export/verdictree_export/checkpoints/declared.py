"""What a checkpoint's configuration declares: its architecture, code of its own, a text model among others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree.text.visible import quoted
from verdictree_export.checkpoints import gguf_settings, quantization
from verdictree_export.checkpoints.library_errors import told
from verdictree_export.checkpoints.source import Source

_WRITES_WORDS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_TEXT_PREFIX = "language_model."
_MOST_LAYERS = 1000


@dataclass(frozen=True)
class Declared:
    """The configuration of a causal LM.

    `quantization` is the method by which its weights are quantized; `is_part` says that the checkpoint holds more than
    this text model, for instance one that sees.
    """

    config: Any
    quantization: str | None
    is_part: bool


def declared(source: Source) -> Declared:
    """What the checkpoint says of itself.

    Raises UnsupportedGuard for code of its own, for what writes no words, for an architecture that transformers does
    not have, and for weights that are quantized beyond what can be undone.
    """
    if source.gguf:
        with told(source.given, "the metadata"):
            config = gguf_settings.configuration(source)
        _check_size(source.given, config)
        return Declared(config, None, False)
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    with told(source.given, "config.json"):
        raw = PretrainedConfig.get_config_dict(source.place)[0]
        tokenizer_config = get_tokenizer_config(source.place)
    for name, said in (("config.json", raw), ("tokenizer_config.json", tokenizer_config)):
        _check_own_code(source.given, name, said)
    _check_architecture(source.given, raw)
    method = quantization.method_of(raw)
    if method:
        quantization.check_method(method, source.given, source.folder)
    with told(source.given, "config.json"):
        config = _with_one_chunk(_text_config(source.given, AutoConfig.from_pretrained(source.place)))
    _check_size(source.given, config)
    return Declared(config, method, config.model_type != raw["model_type"] and "text_config" in raw)


def _check_own_code(source: str, name: str, said: dict[str, Any]) -> None:
    """Own code is refused also where transformers has an architecture of that name.

    The maker's code may compute something else under it, and nothing here could tell: the graph is compared with what
    transformers has.
    """
    if said.get("auto_map"):
        raise UnsupportedGuard(
            f"expected a checkpoint of an architecture that transformers has, got {source!r}, which brings code of its "
            "own; that is never run here. If its maker says that transformers has the same, remove auto_map from "
            f"{name}"
        )


def _check_architecture(source: str, raw: dict[str, Any]) -> None:
    from transformers import CONFIG_MAPPING, __version__

    model_type, names = raw.get("model_type"), raw.get("architectures") or []
    if not isinstance(model_type, str) or not model_type:
        raise UnsupportedGuard(
            f"expected a model_type in config.json of {source!r}, got {quoted(model_type)}; download config.json again"
        )
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedGuard(
            f"expected an architecture that transformers {__version__} has, got {source!r} of model_type "
            f"{quoted(model_type)}; give a checkpoint of another architecture (newer versions: docs/transformers.md)"
        )
    if isinstance(names, list) and names and not any(str(name).endswith(_WRITES_WORDS) for name in names):
        raise UnsupportedGuard(
            f"expected a causal LM, which answers in words, got {source!r}, which is {quoted(names[0])}: an "
            "encoder or a classifier, whose scores need no export; give a guard that writes its verdict"
        )


def _text_config(source: str, config: Any) -> Any:
    """The configuration of the causal LM: the checkpoint's own, or that of the text model in it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    text = config.get_text_config(decoder=True)
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        part = f" with the text model {text.model_type!r}" if text is not config else ""
        raise UnsupportedGuard(
            f"expected an architecture with a causal LM, got {source!r} of model_type "
            f"{config.model_type!r}{part}, which has none that can be loaded by itself; give a guard that reads "
            "text alone"
        )
    if text is not config:
        text.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(text)].__name__]
        said = getattr(config, "quantization_config", None)
        if isinstance(said, dict):
            lists = ("ignore", "modules_to_not_convert", "llm_int8_skip_modules")
            text.quantization_config = said | {
                key: [str(name).removeprefix(_TEXT_PREFIX) for name in said[key]] for key in lists if said.get(key)
            }
    return text


def _check_size(source: str, config: Any) -> None:
    """A damaged number of layers would keep transformers busy for hours before it looks at the weights."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or not 0 < layers <= _MOST_LAYERS:
        raise UnsupportedGuard(
            f"expected 1 to {_MOST_LAYERS} layers in the configuration of {source!r}, got {quoted(layers)}; "
            "download the checkpoint again"
        )


def _with_one_chunk(config: Any) -> Any:
    """Llama Guard 4 sets `attention_chunk_size` to null: attention in one piece, where Llama 4 attends in chunks.

    transformers masks by chunks all the same, and fails for want of a size (PurpleLlama#119): here the one chunk holds
    all positions. For sequences that fit into Llama 4's 8,192 tokens both are the same.
    """
    if getattr(config, "attention_chunk_size", 0) is None:
        config.attention_chunk_size = config.max_position_embeddings
    return config
