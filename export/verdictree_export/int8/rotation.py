"""Turn the residual stream into a basis without outlier channels; the graph computes the same function.

    RMSNorm(x) = g ∘ x / rms(x)   and, for orthogonal R,   rms(xR) = rms(x)

so with every writer of the stream W → WR (embedding, output and down projections) and every reader
W → Rᵀ diag(g) W (query, key, value, gate and up projections, verdict head) and g → 1, all that is read stays the same.
A random R spreads the few channels that are twenty times the others over all of them (QuaRot, arXiv 2404.00456,
section 3; SliceGPT, arXiv 2401.15024, section 3.2). Nothing is added at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from verdictree_export.onnx_file.linear_layers import (
    Floats,
    is_embedding,
    is_weight,
    linear_weight,
    read,
    shape,
    write,
)
from verdictree_export.onnx_file.neighbours import escapes, inputs
from verdictree_export.onnx_file.tensor_names import EXIT_STATES

_NORM = "SimplifiedLayerNormalization"
_BLOCK = 16384  # what is turned at once: a vocabulary in float64, and turned, would be four times the weight
_MOVES = ("Gather", "Slice", "Reshape", "Squeeze", "Unsqueeze")  # tokens, on other axes than the last


class _NotRecognized(Exception):
    pass


@dataclass
class _Roles:
    """What each weight does with the residual stream; a reader's value is the gain it is read through."""

    embeddings: set[ir.Value] = field(default_factory=set)
    writers: set[ir.Value] = field(default_factory=set)
    biases: set[ir.Value] = field(default_factory=set)
    readers: dict[ir.Value, ir.Value] = field(default_factory=dict)


def rotate(model: ir.Model, seed: int = 0) -> int:
    """Rotate the residual stream of an optimized graph in place; return how many weights changed.

    None do where the architecture does not allow it. It must be made of an embedding, linear layers that add to it
    (with a bias or a constant factor) and RMS norms that only linear layers read. A norm between a layer and the
    stream, as Gemma has, scales its channels, and ONNX Runtime fuses Granite's multipliers into its products: such
    graphs are left as they are.
    """
    try:
        roles = _roles(model)
    except _NotRecognized:
        return 0
    table = next(iter(roles.embeddings), None)
    if table is None or not roles.readers:
        return 0
    turn = random_rotation(shape(table)[1], seed)
    written, gains = roles.embeddings | roles.writers | roles.biases, set(roles.readers.values())
    for weight in written:
        write(weight, _written(read(weight), turn))
    for weight, gain in roles.readers.items():
        write(weight, _read(read(weight), read(gain), turn))
    for gain in gains:
        write(gain, np.ones_like(read(gain)))
    return len(written) + len(roles.readers) + len(gains)


def _written(weight: Floats, turn: npt.NDArray[np.float64]) -> Floats:
    """W R (V, H) for W (V, H), or for a bias (H,)."""
    turned = np.empty_like(weight)
    for rows in _blocks(len(weight)) if weight.ndim > 1 else [slice(None)]:
        turned[rows] = weight[rows].astype(np.float64) @ turn
    return turned


def _read(weight: Floats, gain: Floats, turn: npt.NDArray[np.float64]) -> Floats:
    """Rᵀ diag(g) W (H, N) for W (H, N) and g (H,)."""
    turned = np.empty(weight.shape, dtype=np.float32)
    for columns in _blocks(weight.shape[1]):
        turned[:, columns] = turn.T @ (gain.astype(np.float64)[:, None] * weight[:, columns])
    return turned


def _blocks(size: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]


def random_rotation(size: int, seed: int) -> npt.NDArray[np.float64]:
    """A random orthogonal matrix (size, size), uniform over all of them (Mezzadri, arXiv math-ph/0609050)."""
    basis, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return np.asarray(basis * np.sign(np.diag(triangle)))


def _roles(model: ir.Model) -> _Roles:
    roles, stream, normalized = _Roles(), set[ir.Value](), dict[ir.Value, ir.Value]()
    for node in model.graph:
        if is_embedding(node):
            roles.embeddings.add(inputs(node)[0])
            stream.add(node.outputs[0])
        elif EXIT_STATES in (value.name for value in node.outputs):
            continue  # the probe there is fitted to the turned stream, later
        elif node.op_type != "Shape" and stream.intersection(inputs(node)):
            _follow_stream(node, roles, stream, normalized)
        elif node.op_type != "Shape" and not normalized.keys().isdisjoint(inputs(node)):
            _follow_normalized(node, roles, normalized)
    if any(escapes(value) for value in stream | normalized.keys()):
        raise _NotRecognized
    _check_uses(roles)
    return roles


def _follow_stream(node: ir.Node, roles: _Roles, stream: set[ir.Value], normalized: dict[ir.Value, ir.Value]) -> None:
    read_by_it = inputs(node)
    if node.op_type == "Add":
        for value in [value for value in read_by_it if value not in stream]:
            _add_writer(value.producer(), roles)
        stream.add(node.outputs[0])
    elif node.op_type == "Mul" and any(map(_is_number, read_by_it)):
        stream.add(node.outputs[0])
    elif node.op_type in _MOVES and not stream.intersection(read_by_it[1:]):
        stream.add(node.outputs[0])  # the tokens that the last layer is computed at
    elif node.op_type == _NORM and is_weight(read_by_it[1]) and len([one for one in node.outputs if one.name]) == 1:
        normalized[node.outputs[0]] = read_by_it[1]
    else:
        raise _NotRecognized


def _add_writer(node: ir.Node | None, roles: _Roles) -> None:
    """The linear layer that ends in `node`: a product, its bias, a constant factor."""
    weight = linear_weight(node)
    if weight is not None:
        roles.writers.add(weight)
        return
    if node is None or node.op_type not in ("Add", "Mul"):
        raise _NotRecognized
    for value in inputs(node):
        if node.op_type == "Add" and is_weight(value) and len(shape(value)) == 1:
            roles.biases.add(value)
        elif not (node.op_type == "Mul" and _is_number(value)):
            _add_writer(value.producer(), roles)


def _follow_normalized(node: ir.Node, roles: _Roles, normalized: dict[ir.Value, ir.Value]) -> None:
    first, *others = inputs(node)
    gain, weight = normalized.get(first), linear_weight(node)
    if gain is None or any(value in normalized for value in others):
        raise _NotRecognized
    if weight is not None:
        if roles.readers.setdefault(weight, gain) is not gain:
            raise _NotRecognized
    elif node.op_type in _MOVES:
        normalized[node.outputs[0]] = gain
    else:
        raise _NotRecognized


def _check_uses(roles: _Roles) -> None:
    """Every weight is used in its one role and nowhere else."""
    groups: list[set[ir.Value]] = [roles.embeddings, roles.writers, roles.biases, set(roles.readers)]
    gains = set(roles.readers.values())
    if len(set().union(*groups)) != sum(map(len, groups)) or gains & set().union(*groups):
        raise _NotRecognized
    kinds = [("Gather", roles.embeddings), ("MatMul", roles.writers | set(roles.readers)), ("Add", roles.biases)]
    for operator, weights in [*kinds, (_NORM, gains)]:
        for weight in weights:
            if escapes(weight) or any(node.op_type != operator for node in weight.consumers()):
                raise _NotRecognized


def _is_number(value: ir.Value) -> bool:
    return is_weight(value) and np.prod(shape(value), dtype=int) == 1
