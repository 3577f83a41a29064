"""ONNX Runtime's own operators, which a graph must declare before it uses them."""

from __future__ import annotations

import onnx

DOMAIN = "com.microsoft"


def declare(model: onnx.ModelProto) -> None:
    """Let `model` use operators of `DOMAIN`, if it does not yet."""
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
