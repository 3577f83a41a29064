"""Tiny guards as GGUF files, written as llama.cpp's converter writes them (convert_hf_to_gguf.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFValueType,
    GGUFWriter,
    RopeScalingType,
    get_tensor_name_map,
    quants,
)
from transformers import AutoModelForCausalLM

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
# SentencePiece's pieces, of which Gemma's tokenizer has the bytes, and a few that make words.
_PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
_WORDS = [
    *("▁", "safe", "▁safe", "un", "unsafe", "<start_of_turn>", "<end_of_turn>", "\n", "Yes", "No"),
    *(chr(i) for i in range(33, 127)),
]


def write_gguf(
    path: Path, folder: Path, architecture: str, quantization: Any = GGMLQuantizationType.F32, **changes: Any
) -> Path:
    """Write the checkpoint in `folder` as a GGUF file of llama.cpp's `architecture`, its matrices quantized.

    `changes` adds or replaces metadata (`general__name`); what begins with + is a tensor, added or (None) left out.
    """
    model = AutoModelForCausalLM.from_pretrained(folder)
    writer = GGUFWriter(path, architecture)
    extra = {name[1:]: changes.pop(name) for name in list(changes) if name.startswith("+")}
    _write_settings(writer, model.config, architecture)
    (_write_pieces if architecture.startswith("gemma") else _write_bpe)(writer, folder)
    for key, value in changes.items():
        name = key.replace("__", ".")
        writer.kv_data[0].pop(name, None)
        if value is not None:
            writer.add_key_value(name, value, GGUFValueType.get_type(value))
    for name, tensor in (_tensors(model, architecture) | extra).items():
        if tensor is None:
            continue
        kind = quantization if tensor.dim() == 2 else GGMLQuantizationType.F32
        values = tensor.numpy().astype(np.float32)
        if kind is GGMLQuantizationType.Q8_K:  # which is made on the way only: nothing reads it, nothing writes it
            writer.add_tensor(name, np.zeros((len(values), 292 * values.shape[1] // 256), np.uint8), raw_dtype=kind)
        else:
            writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_settings(writer: GGUFWriter, config: Any, architecture: str) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    if architecture != "qwen2":
        writer.add_key_length(head)
        writer.add_value_length(head)
    if architecture == "llama":
        writer.add_rope_dimension_count(head)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    scaling = getattr(config, "rope_scaling", None)
    if scaling and scaling["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])


def _write_bpe(writer: GGUFWriter, folder: Path) -> None:
    said = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = said["model"]["vocab"] | {token["content"]: token["id"] for token in said["added_tokens"]}
    kinds = {token["content"]: _CONTROL if token["special"] else _USER_DEFINED for token in said["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if writer.arch.startswith("qwen") else "llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, _NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in said["model"]["merges"]])
    writer.add_bos_token_id(vocabulary["<|begin|>"])
    writer.add_eos_token_id(vocabulary["<|eot|>"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _write_pieces(writer: GGUFWriter, folder: Path) -> None:
    tokens = (_PIECES + _WORDS + [f"<unused{i}>" for i in range(500)])[: _rows(folder)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) / 10 for i in range(len(tokens))])
    writer.add_token_types([_CONTROL if token.startswith("<") and len(token) > 6 else _NORMAL for token in tokens])
    for name, number in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template("<bos>{% for m in messages %}<start_of_turn>{{ m.content }}<end_of_turn>{% endfor %}")


def _rows(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["vocab_size"])


def _tensors(model: Any, architecture: str) -> dict[str, torch.Tensor]:
    config = model.config
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        base, _, suffix = name.rpartition(".")
        if architecture == "llama" and base.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if base.endswith("q_proj") else config.num_key_value_heads
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        if architecture.startswith("gemma") and base.endswith("norm"):
            tensor = tensor + 1
        tensors[f"{names.get_name(base)}.{suffix}"] = tensor.detach().clone()
    return tensors
