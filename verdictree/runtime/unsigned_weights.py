"""The same graph with uint8 weights, for processors that do not multiply uint8 × int8 exactly.

A weight w becomes w + 128 with the zero point 128, which flips its sign bit. The products are the same integers, so
outputs are the same to the last bit; uint8 × uint8 is exact on every processor, and slower than int8 where that is
exact too, so a release holds int8.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from verdictree.runtime.session import INTEGER_PRODUCT

_SIGN_BIT = np.uint8(128)
_ZERO_POINT = "unsigned/zero_point"


def copy(graph: Path, folder: Path) -> Path:
    """Write the int8 `graph` with its weights' files into `folder`; return the new graph's file."""
    model = onnx.load(graph, load_external_data=False)
    weights = set()
    for node in _nodes(model.graph):
        if node.op_type == INTEGER_PRODUCT:
            weights.add(node.input[1])
            node.input.append(_ZERO_POINT)  # the weight's; int8 weights have none
    for name in {ExternalDataInfo(one).location for one in model.graph.initializer if uses_external_data(one)}:
        shutil.copyfile(graph.with_name(name), folder / name)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            _flip_sign_bits(tensor, folder)
    model.graph.initializer.append(numpy_helper.from_array(np.array(_SIGN_BIT), _ZERO_POINT))
    onnx.save(model, folder / graph.name)
    return folder / graph.name


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _flip_sign_bits(tensor: TensorProto, folder: Path) -> None:
    tensor.data_type = TensorProto.UINT8
    if not uses_external_data(tensor):
        tensor.raw_data = bytes(np.frombuffer(tensor.raw_data, np.uint8) ^ _SIGN_BIT)
        return
    place = ExternalDataInfo(tensor)
    values = np.memmap(
        folder / place.location, np.uint8, "r+", offset=place.offset or 0, shape=(math.prod(tensor.dims),)
    )
    np.bitwise_xor(values, _SIGN_BIT, out=values)
    values.flush()
