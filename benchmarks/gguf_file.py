"""A checkpoint as llama.cpp reads it: a GGUF file at Q8_0, with the tokenizer and settings of another GGUF file.

llama.cpp turns neighbouring features by the rotary embedding, transformers those half a head apart, so the rows of
query and key projections stand in another order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, quants
from gguf.constants import MODEL_ARCH
from gguf.tensor_mapping import get_tensor_name_map

_WRITTEN_BY_ITSELF = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")


def write(model: Any, like: Path, target: Path) -> None:
    """Write the Llama `model` (transformers) as `target`; `like` is a GGUF file of the same architecture."""
    writer, config = GGUFWriter(target, "llama"), model.config
    for field in GGUFReader(like).fields.values():
        if field.name in _WRITTEN_BY_ITSELF:
            continue
        kind = field.types[0]
        value = LlamaFileType.MOSTLY_Q8_0 if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if name.endswith("q_proj.weight"):
            values = _neighbours(values, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            values = _neighbours(values, config.num_key_value_heads)
        kind = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType.Q8_0
        renamed = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(renamed, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _neighbours(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
