"""A checkpoint's files with weights: all of them here, and each as long as its own header says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree_export.checkpoints.impostors import first_bytes

# In the order in which transformers looks for them.
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED, _PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_AGAIN = "the download was cut off: download it again"
_LENGTH_BYTES = 8  # of a safetensors header's own length, before it
_OTHERS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.ckpt")
_SHOWN = 4


def check_weights(folder: Path) -> None:
    """Look at each file with weights that would be loaded from a checkpoint's folder.

    Raises UnsupportedGuard for one that is missing, cut off, no weights, or a pointer to them.
    """
    for path in _files(folder):
        first_bytes(path)
        if path.suffix == ".safetensors":
            _safetensors(path)


def tensor_names(folder: Path) -> set[str]:
    """The names of the tensors in a folder's safetensors files; none of pickled ones, which would have to be loaded."""
    files = [path for path in _files(folder) if path.suffix == ".safetensors"]
    return {name for path in files for name in _safetensors(path)}


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UnsupportedGuard for anything else in it."""
    first_bytes(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:  # a UnicodeDecodeError is a ValueError
        reason = str(exc) if isinstance(exc, ValueError) else "nested without end"
        raise UnsupportedGuard(
            f"expected JSON in '{path}', got something else ({reason}); download it again, or undo what was "
            "changed in it"
        ) from exc
    if not isinstance(value, dict):
        raise UnsupportedGuard(f"expected a JSON object in '{path}', got a {type(value).__name__}; download it again")
    return value


def _files(folder: Path) -> Iterator[Path]:
    for whole, index in ((_WHOLE, _INDEX), (_PICKLED, _PICKLED_INDEX)):
        if (folder / whole).exists() or (folder / whole).is_symlink():
            yield folder / whole
            return
        if (folder / index).exists():
            yield from _shards(folder / index)
            return
    found = sorted(path.name for pattern in _OTHERS for path in folder.glob(pattern))
    others = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
    if any(name.endswith(".gguf") for name in found):
        fix = "give the GGUF file's own path"
    else:
        fix = "download them, in the form in which transformers saves them"
    raise UnsupportedGuard(
        f"expected {_WHOLE}, {_INDEX} or {_PICKLED} in '{folder}', got {others or 'no file with weights'}; {fix}"
    )


def _shards(index: Path) -> list[Path]:
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise UnsupportedGuard(f"expected a weight_map from tensors to files in '{index}', got none; download it again")
    names = sorted(set(listed.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UnsupportedGuard(f"expected files of its own folder in '{index}', got {outside[0]!r}; download it again")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise UnsupportedGuard(
            f"expected the {len(names)} files that '{index}' lists, got {len(names) - len(missing)}: {missing[0]} is "
            "missing; download the checkpoint again"
        )
    return [index.parent / name for name in names]


def _safetensors(path: Path) -> list[str]:
    """The tensors' names, of a file that is as long as its header says.

    https://huggingface.co/docs/safetensors: the header's length, the header in JSON, the tensors end to end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        text, begin = file.read(min(length, size)), _LENGTH_BYTES + length
    if size < _LENGTH_BYTES or (begin > size and text.startswith(b"{")):
        raise UnsupportedGuard(f"expected a whole safetensors file at '{path}', got {size} bytes of it; {_AGAIN}")
    try:
        tensors = {name: tensor for name, tensor in json.loads(text).items() if name != "__metadata__"}
        end = begin + max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as exc:
        raise UnsupportedGuard(
            f"expected safetensors at '{path}', got a file that does not begin with their header; download it again"
        ) from exc
    if size != end:
        raise UnsupportedGuard(f"expected {end} bytes in '{path}', as its header says, got {size}; {_AGAIN}")
    return list(tensors)
