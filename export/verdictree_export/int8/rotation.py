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
import onnx

from verdictree_export.onnx_file.graph_index import GraphIndex

_NORM = "SimplifiedLayerNormalization"
_MOVES = ("Gather", "Slice", "Reshape", "Squeeze", "Unsqueeze")  # tokens, on other axes than the last


class _NotRecognized(Exception):
    pass


@dataclass
class _Roles:
    """What each weight does with the residual stream; a reader's value is the gain it is read through."""

    embeddings: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)
    biases: set[str] = field(default_factory=set)
    readers: dict[str, str] = field(default_factory=dict)


def rotate(model: onnx.ModelProto, seed: int = 0) -> bool:
    """Rotate the residual stream of an optimized graph in place; False where its architecture does not allow that.

    It must be made of an embedding, linear layers that add to it (with a bias or a constant factor) and RMS norms that
    only linear layers read. A norm between a layer and the stream, as Gemma has, scales its channels, and ONNX Runtime
    fuses Granite's multipliers into its products: such graphs are left as they are.
    """
    index = GraphIndex(model)
    try:
        roles = _roles(index)
    except _NotRecognized:
        return False
    table = next(iter(roles.embeddings), None)
    if table is None or not roles.readers:
        return False
    turn = random_rotation(index.weights[table].dims[1], seed)
    for name in roles.embeddings | roles.writers | roles.biases:
        index.write(name, index.read(name).astype(np.float64) @ turn)
    for name, gain in roles.readers.items():
        index.write(name, turn.T @ (index.read(gain).astype(np.float64)[:, None] * index.read(name)))
    for gain in set(roles.readers.values()):
        index.write(gain, np.ones_like(index.read(gain)))
    return True


def random_rotation(size: int, seed: int) -> npt.NDArray[np.float64]:
    """A random orthogonal matrix (size, size), uniform over all of them (Mezzadri, arXiv math-ph/0609050)."""
    basis, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return np.asarray(basis * np.sign(np.diag(triangle)))


def _roles(index: GraphIndex) -> _Roles:
    roles, stream, normalized = _Roles(), set[str](), dict[str, str]()
    for node in index.graph.node:
        if node.op_type == "Gather" and "embed" in node.input[0] and node.input[0] in index.weights:
            roles.embeddings.add(node.input[0])
            stream.add(node.output[0])
        elif node.op_type != "Shape" and stream.intersection(node.input):
            _follow_stream(index, node, roles, stream, normalized)
        elif node.op_type != "Shape" and not normalized.keys().isdisjoint(node.input):
            _follow_normalized(index, node, roles, normalized)
    if not index.escaping.isdisjoint(stream | normalized.keys()):
        raise _NotRecognized
    _check_uses(index, roles)
    return roles


def _follow_stream(
    index: GraphIndex, node: onnx.NodeProto, roles: _Roles, stream: set[str], normalized: dict[str, str]
) -> None:
    if node.op_type == "Add":
        for name in [name for name in node.input if name not in stream]:
            _add_writer(index, index.producers.get(name), roles)
        stream.add(node.output[0])
    elif node.op_type == "Mul" and any(_is_number(index, name) for name in node.input):
        stream.add(node.output[0])
    elif node.op_type in _MOVES and not stream.intersection(node.input[1:]):
        stream.add(node.output[0])  # the tokens that the last layer is computed at
    elif node.op_type == _NORM and node.input[1] in index.weights and len([o for o in node.output if o]) == 1:
        normalized[node.output[0]] = node.input[1]
    else:
        raise _NotRecognized


def _add_writer(index: GraphIndex, node: onnx.NodeProto | None, roles: _Roles) -> None:
    """The linear layer that ends in `node`: a product, its bias, a constant factor."""
    weight = index.linear_weight(node)
    if weight is not None:
        roles.writers.add(weight)
        return
    if node is None or node.op_type not in ("Add", "Mul"):
        raise _NotRecognized
    for name in node.input:
        if node.op_type == "Add" and name in index.weights and len(index.weights[name].dims) == 1:
            roles.biases.add(name)
        elif not (node.op_type == "Mul" and _is_number(index, name)):
            _add_writer(index, index.producers.get(name), roles)


def _follow_normalized(index: GraphIndex, node: onnx.NodeProto, roles: _Roles, normalized: dict[str, str]) -> None:
    gain = normalized.get(node.input[0])
    weight = index.linear_weight(node)
    if gain is None or any(name in normalized for name in node.input[1:]):
        raise _NotRecognized
    if weight is not None:
        if roles.readers.setdefault(weight, gain) != gain:
            raise _NotRecognized
    elif node.op_type in _MOVES:
        normalized[node.output[0]] = gain
    else:
        raise _NotRecognized


def _check_uses(index: GraphIndex, roles: _Roles) -> None:
    """Every weight is used in its one role and nowhere else."""
    groups: list[set[str]] = [roles.embeddings, roles.writers, roles.biases, set(roles.readers)]
    gains = set(roles.readers.values())
    if len(set().union(*groups)) != sum(map(len, groups)) or gains & set().union(*groups):
        raise _NotRecognized
    kinds = [("Gather", roles.embeddings), ("MatMul", roles.writers | set(roles.readers)), ("Add", roles.biases)]
    for operator, names in [*kinds, (_NORM, gains)]:
        for name in names:
            if name in index.escaping or any(node.op_type != operator for node in index.consumers[name]):
                raise _NotRecognized


def _is_number(index: GraphIndex, name: str) -> bool:
    return name in index.weights and np.prod(index.weights[name].dims, dtype=int) == 1
