"""Checkpoints of other kinds than a causal LM's folder in full precision: read as what they are, or refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tiny_guard
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BitsAndBytesConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MambaConfig,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
)

from verdictree.errors import UnsupportedGuard
from verdictree_export.exporter import export_release
from verdictree_export.prompts import checkpoint

pytestmark = pytest.mark.slow

# Of the optional packages that some quantized checkpoints need, the small one comes with `dev`.
compressed_tensors = pytest.mark.skipif(not importlib.util.find_spec("compressed_tensors"), reason="not installed")
WEIGHTS, CONFIG = "model.safetensors", "config.json"
TEXT = {**tiny_guard.SIZES, "vocab_size": len(tiny_guard.tokenizer()), "head_dim": 8, "pad_token_id": 0}
EYES = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
    **{"image_size": 28, "patch_size": 14},
}


def llama_4(**changes):
    text = {"num_local_experts": 1, "moe_layers": [], "intermediate_size_mlp": 64, "no_rope_layers": [1, 0]}
    eyes = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    config = Llama4Config(text_config={**TEXT, **text, **changes}, vision_config={**EYES, **eyes})
    return Llama4ForConditionalGeneration(config)


def gemma_3():
    config = Gemma3Config(text_config={**TEXT, "sliding_window": 20}, vision_config=EYES, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def mistral_3():
    eyes = {**EYES, "model_type": "pixtral", "head_dim": 8}
    config = Mistral3Config(text_config={**TEXT, "model_type": "mistral"}, vision_config=eyes)
    return Mistral3ForConditionalGeneration(config)


def llava():
    eyes = {**EYES, "model_type": "clip_vision_model"}
    return LlavaForConditionalGeneration(LlavaConfig(text_config={**TEXT, "model_type": "llama"}, vision_config=eyes))


def llama_3_vision():
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    eyes = {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_global_layers": 1},
        **{"attention_heads": 4, "image_size": 28, "patch_size": 14, "vision_output_dim": 64},
        **{"intermediate_layers_indices": [0], "max_num_tiles": 4},
    }
    scaling = {"cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"}}
    return MllamaForConditionalGeneration(MllamaConfig(text_config={**text, **scaling}, vision_config=eyes))


def saved(model, folder, tokenizer=None):
    model.save_pretrained(folder)
    (tokenizer or tiny_guard.tokenizer()).save_pretrained(folder)
    return folder


def logits(model):
    with torch.inference_mode():
        return model.eval()(torch.arange(5, 45)[None]).logits


@pytest.mark.parametrize("make", [llama_4, gemma_3, mistral_3, llava])
def test_the_text_model_of_one_that_sees_is_loaded(make, tmp_path):
    """Llama Guard 4 and ShieldGemma 2 are published so; their text models are causal LMs like others."""
    torch.manual_seed(0)
    model = make()
    folder = saved(model, tmp_path / "c")
    loaded = checkpoint.load(str(folder))
    assert torch.equal(logits(loaded.model), logits(model)) and not hasattr(loaded.model, "vision_model")
    weightless = checkpoint.load_weightless(str(folder))
    assert type(weightless.model) is type(loaded.model)
    assert weightless.max_positions == loaded.max_positions


def test_the_newer_names_of_a_text_models_weights_are_known(tmp_path):
    """transformers 5 saves `model.language_model.…` where 4 saved `language_model.model.…`."""
    torch.manual_seed(0)
    model = mistral_3()
    folder = saved(model, tmp_path / "c")
    names = {"language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head"}
    weights = load_file(folder / WEIGHTS)
    for old, new in names.items():
        weights = {name.replace(old, new, 1): tensor for name, tensor in weights.items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(logits(checkpoint.load(str(folder)).model), logits(model))


def test_a_text_model_without_one_of_its_weights_is_refused(tmp_path):
    """What is left over of a model that sees is no reason to fill a gap at random."""
    folder = saved(gemma_3(), tmp_path / "c")
    weights = load_file(folder / WEIGHTS)
    del weights["language_model.model.norm.weight"]
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UnsupportedGuard, match=r"lacks model\.norm\.weight"):
        checkpoint.load(str(folder))


def test_llama_guard_4_has_no_size_of_chunks(tmp_path):
    """Its published configuration says null, with which transformers' own layers fail (PurpleLlama#119)."""
    torch.manual_seed(0)
    model = llama_4(attention_chunk_size=512)
    expected = logits(model)
    folder = saved(model, tmp_path / "c")
    said = json.loads((folder / CONFIG).read_text())
    said["text_config"] |= {"attention_chunk_size": None}
    (folder / CONFIG).write_text(json.dumps(said))
    loaded = checkpoint.load(str(folder))
    assert torch.equal(logits(loaded.model), expected)
    assert loaded.max_positions == TEXT["max_position_embeddings"]
    release = export_release(
        str(folder), "llama-guard-4", [tiny_guard.POLICY], tmp_path / "models", max_off_grammar=1.0
    )
    assert release.parity.max_abs_log_prob_difference < 1e-3


def test_a_model_that_sees_in_all_its_layers_is_refused(tmp_path):
    """Llama Guard 3 11B Vision attends to pictures within its text model."""
    folder = saved(llama_3_vision(), tmp_path / "c")
    for load in (checkpoint.load, checkpoint.load_weightless):
        with pytest.raises(
            UnsupportedGuard, match=r"'mllama' with the text model .*; give a guard that reads text alone"
        ):
            load(str(folder))


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, is_decoder=True),
        GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2),
        MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, state_size=4),
    ],
    ids=lambda config: config.model_type,
)
def test_an_architecture_that_is_no_stack_of_attention_layers_is_refused(config, tmp_path):
    """The graph is built around such a stack; without it an export ends in an AttributeError."""
    folder = saved(AutoModelForCausalLM.from_config(config), tmp_path / "c")
    for load in (checkpoint.load, checkpoint.load_weightless):
        with pytest.raises(UnsupportedGuard, match="expected a decoder of attention layers, got"):
            load(str(folder))


def int8(weight):
    scale = weight.abs().amax(1, keepdim=True) / 127
    values = (weight / scale).round()
    return {"": values.to(torch.int8), "_scale": scale}, values * scale


def float8(weight):
    scale = weight.abs().amax(1, keepdim=True) / 448
    values = (weight / scale).to(torch.float8_e4m3fn)
    return {"": values, "_scale": scale}, values.float() * scale


def int4(weight):
    """Groups of 32 share a scale, and eight values an int32, the first in its lowest bits."""
    grouped = weight.reshape(len(weight), -1, 32)
    scale = grouped.abs().amax(2) / 7
    values = (grouped / scale[..., None]).round().clamp(-8, 7)
    unsigned = values.reshape(weight.shape).to(torch.int32) + 8
    packed = sum(unsigned[:, i::8] << (4 * i) for i in range(8))
    parts = {"_packed": packed, "_scale": scale, "_shape": torch.tensor(weight.shape)}
    return parts, (values * scale[..., None]).reshape(weight.shape)


TOKENWISE = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}
ROWS = {"symmetric": True, "strategy": "channel", "dynamic": False}
COMPRESSED = {
    "int-quantized": (int8, {**ROWS, "num_bits": 8, "type": "int"}, {**TOKENWISE, "type": "int"}),
    "float-quantized": (float8, {**ROWS, "num_bits": 8, "type": "float"}, {**TOKENWISE, "type": "float"}),
    "pack-quantized": (int4, {**ROWS, "num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}, None),
}


def compress(folder, form, prefix=""):
    """Quantize a checkpoint as llm-compressor does; returns the weights that it then stands for."""
    quantize, weights, activations = COMPRESSED[form]
    tensors, plain = load_file(folder / WEIGHTS), {}
    for name, tensor in list(tensors.items()):
        plain[name] = tensor
        if name.startswith(prefix) and "_proj" in name:
            parts, plain[name] = quantize(tensors.pop(name))
            tensors |= {name + suffix: part for suffix, part in parts.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    said = json.loads((folder / CONFIG).read_text())
    said["quantization_config"] = {
        **{"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed"},
        **{"config_groups": {"group_0": group}, "ignore": [f"{prefix.removesuffix('model.')}lm_head"]},
        **{"kv_cache_scheme": None, "global_compression_ratio": None},
    }
    (folder / CONFIG).write_text(json.dumps(said))
    return plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_guard.write_checkpoint(tmp_path_factory.mktemp("full") / "checkpoint")


@compressed_tensors
@pytest.mark.parametrize("form", COMPRESSED)
def test_compressed_tensors_are_dequantized(form, folder, tmp_path):
    """Most quantized guards are published so; their values are known to the last bit without a GPU."""
    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    model = AutoModelForCausalLM.from_pretrained(copy)
    model.load_state_dict(compress(copy, form))
    loaded = checkpoint.load(str(copy))
    assert torch.equal(logits(loaded.model), logits(model))
    assert all(type(one) is torch.nn.Linear for one in loaded.model.modules() if isinstance(one, torch.nn.Linear))
    checkpoint.save_weightless(loaded, tmp_path / "weightless")
    assert "quantization" not in (tmp_path / "weightless" / CONFIG).read_text()


@compressed_tensors
def test_a_compressed_text_model_of_one_that_sees_is_dequantized(tmp_path):
    """Llama Guard 4 in FP8; what is not quantized is named as in the whole model there."""
    torch.manual_seed(0)
    model = llama_4()
    folder = saved(model, tmp_path / "c")
    model.load_state_dict(compress(folder, "float-quantized", "language_model.model."))
    assert torch.equal(logits(checkpoint.load(str(folder)).model), logits(model))


@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes_is_dequantized(bits, folder, tmp_path):
    """Llama Guard 3 8B is published in it; it was made for GPUs, and computes on a CPU too."""
    pytest.importorskip("bitsandbytes", reason="a large package, which only such checkpoints need")
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    settings = BitsAndBytesConfig(**(options if bits == 4 else {"load_in_8bit": True}))
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    model.save_pretrained(tmp_path / "c")
    tiny_guard.tokenizer().save_pretrained(tmp_path / "c")
    loaded = checkpoint.load(str(tmp_path / "c"))
    assert torch.equal(logits(loaded.model), logits(model.dequantize()))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert not any("forward" in vars(module) for module in loaded.model.modules()), "hooks would be traced"


def test_a_quantization_whose_package_is_missing_names_it(folder, tmp_path, monkeypatch):
    """The packages are large, and of use to few."""
    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    compress(copy, "int-quantized")
    (copy / "README.md").write_text("---\nbase_model: [meta-llama/Llama-Guard-3-8B]\n---\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UnsupportedGuard,
        match="`pip install compressed-tensors`, or give the unquantized checkpoint, here meta-llama/Llama-Guard-3-8B",
    ):
        checkpoint.load(str(copy))


def lora(folder, base, **changes):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    said = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return model


def test_an_adapter_is_merged(folder, tmp_path):
    """The guard that was trained is the base with its changes."""
    expected = logits(lora(tmp_path / "a", folder))
    merged = checkpoint.load(str(folder), tmp_path / "a").model
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)


def other_size(folder, base):
    lora(folder, tiny_guard.write_checkpoint(folder / "base", hidden_size=64))


def half(folder, base):
    lora(folder, base)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])


def fewer(folder, base):
    lora(folder, base)
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if "v_proj" not in name}
    save_file(tensors, path)


def pointer(folder, base):
    lora(folder, base)
    (folder / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder, base: folder.mkdir(), "expected a LoRA adapter folder with adapter_config.json"),
        (lambda folder, base: lora(folder, base, peft_type="IA3"), "expected a LoRA adapter in .*IA3"),
        (lambda folder, base: lora(folder, base, target_modules=["wq"]), "the LoRA adapter of"),
        (other_size, "of two models"),
        (half, "the LoRA adapter of"),
        (fewer, "leaves layers of it as they were"),
        (pointer, "a Git LFS pointer"),
    ],
    ids=["no adapter", "another method", "other names", "another size", "half", "a layer is missing", "a pointer"],
)
def test_an_adapter_that_is_not_this_checkpoints_is_refused(make, said, folder, tmp_path):
    """peft leaves a layer as it was where the adapter has nothing for it, with a warning."""
    make(tmp_path / "a", folder)
    with pytest.raises(UnsupportedGuard, match=said) as refused:
        checkpoint.load(str(folder), tmp_path / "a")
    assert "\n" not in str(refused.value)


def test_a_checkpoint_in_half_precision_has_the_numbers_of_its_file(folder, tmp_path):
    """What is loaded as fp32 is what is stored, not what a default says."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "c")
    tiny_guard.tokenizer().save_pretrained(tmp_path / "c")
    loaded = checkpoint.load(str(tmp_path / "c")).model.state_dict()
    assert AutoConfig.from_pretrained(tmp_path / "c").dtype == torch.bfloat16
    assert all(torch.equal(tensor.float(), loaded[name]) for name, tensor in model.state_dict().items())
