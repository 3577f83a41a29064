"""A checkpoint's folder: is it one, and are its files whole?"""

from __future__ import annotations

import fnmatch
from pathlib import Path

from verdictree.errors import UnsupportedGuard
from verdictree_export.checkpoints.impostors import first_bytes, unreadable
from verdictree_export.checkpoints.weight_files import check_weights, read_object

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
# All that transformers reads beside the weights.
_READ = (
    *(CONFIG, "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
# What else is found where a config.json is not, and what to do with it.
_OTHER_FORMS = {
    "*.gguf": "give the GGUF file's own path",
    "params.json": "it is in its maker's own form: give the one for transformers, or convert it",
    "*.nemo": "it is NeMo's: convert it for transformers",
    "model_index.json": "it is a diffusion pipeline",
    "genai_config.json": "it is made for ONNX Runtime: give the checkpoint that it was made of",
    "openvino_model.xml": "it is made for OpenVINO: give the checkpoint that it was made of",
}


def check_folder(folder: Path, with_weights: bool) -> None:
    """Look at every file that would be read from a checkpoint's folder, at the weights only if they are wanted.

    Raises UnsupportedGuard for a folder of another kind, and for a file that is missing, empty, cut off, a pointer to
    what it should be, or not to be read.
    """
    try:
        names = [str(path.relative_to(folder)) for path in [*folder.iterdir(), *folder.glob("*/*.jinja")]]
    except OSError as exc:
        raise unreadable(folder, exc) from exc
    check_no_adapter(folder)
    if CONFIG not in names:
        raise _no_config(folder, names)
    for name in sorted(names):
        if any(fnmatch.fnmatch(name, pattern) for pattern in _READ):
            (read_object if name.endswith(".json") else first_bytes)(folder / name)
    if not set(_TOKENIZERS) & set(names):
        raise UnsupportedGuard(
            f"expected a tokenizer in '{folder}' ({', '.join(_TOKENIZERS[:2])} or vocab.json), got none; download "
            "it too"
        )
    if with_weights:
        check_weights(folder)


def check_no_adapter(folder: Path) -> None:
    """Raise UnsupportedGuard where an adapter lies in the folder: transformers would load another model, its base."""
    path = folder / ADAPTER_CONFIG
    if not path.exists() and not path.is_symlink():
        return
    base = read_object(path).get("base_model_name_or_path") or "BASE"
    if (folder / CONFIG).exists():
        raise UnsupportedGuard(
            f"expected a checkpoint, got '{folder}' with a LoRA adapter of {base!r} beside it; if its weights are "
            f"merged, remove {ADAPTER_CONFIG}, else export {base} with --adapter {folder}"
        )
    raise UnsupportedGuard(
        f"expected a checkpoint, got '{folder}', a LoRA adapter of {base!r}; export {base} with --adapter {folder}"
    )


def _no_config(folder: Path, names: list[str]) -> UnsupportedGuard:
    for pattern, fix in _OTHER_FORMS.items():
        found = fnmatch.filter(names, pattern)
        if found:
            return UnsupportedGuard(f"expected {CONFIG} in '{folder}', got {found[0]}; {fix}")
    below = [path.parent.name for path in sorted(folder.glob(f"*/{CONFIG}"))]
    if below:
        return UnsupportedGuard(
            f"expected {CONFIG} in '{folder}', got one in its folder '{below[0]}'; give '{folder / below[0]}'"
        )
    return UnsupportedGuard(
        f"expected a checkpoint's folder with {CONFIG}, got '{folder}', which has none; give the folder into which the "
        "checkpoint was downloaded"
    )
