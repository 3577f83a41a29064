"""What a node of an ONNX graph reads, and who reads what it makes: the few steps that onnx-ir leaves to its users."""

from __future__ import annotations

import onnx_ir as ir

CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators, which a graph must declare


def inputs(node: ir.Node) -> list[ir.Value]:
    """A node's inputs, without those that it leaves out."""
    return [value for value in node.inputs if value is not None]


def source(node: ir.Node | None, at: int) -> ir.Node | None:
    """The node that makes this input of a node; None for the graph's inputs and weights, or where there is no input."""
    value = node.inputs[at] if node is not None and at < len(node.inputs) else None
    return value.producer() if value is not None else None


def escapes(value: ir.Value) -> bool:
    """Whether a branch of an If or the graph's caller reads a tensor: where it goes is not followed."""
    return value.is_graph_output() or any(reader.graph is not value.graph for reader in value.consumers())


def readers(value: ir.Value) -> list[ir.Node]:
    """All nodes that read a tensor; none where it escapes, since not all its readers are known then."""
    return [] if escapes(value) else list(value.consumers())


def replace(node: ir.Node, result: ir.Value) -> None:
    """Let `result` stand for what `node` made, under its name, and remove the node."""
    output = node.outputs[0]
    result.name, result.type, result.shape = output.name, output.type, output.shape
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
