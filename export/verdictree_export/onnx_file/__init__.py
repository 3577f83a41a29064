"""The ONNX file: traced, rewritten, saved, run.

    onnx_model.py    torch module ─► tracing ─► passes ─► model.onnx, weights.bin, policies.bin; later: other policies
        │
        ├─ tracing.py   torch module ─► ONNX, through optimum's exporter, which no other module knows
        ├─ passes.py    the list of what is done after tracing, and the small passes; rotary.py is the large one
        └─ branches.py  the last step: each depth of the search in a branch of its own

    sizes.py         what a branch computes anew, so that no GPU waits for a size
    half_precision.py  the layers in fp16 or bf16, and what a CPU runs in their place

    neighbours.py, linear_layers.py   what a node reads, who reads it, which weights: what every pass looks up
    tensor_names.py  what tensors are called
    graph_session.py an exported graph, run during the export
    graph_prefill.py a new prompt's prefix, computed by an exported graph itself

No pass changes what the graph computes: each is tested by running ONNX Runtime before and after. A pass works on
onnx-ir's graph, which knows who makes and who reads a tensor, and leaves weights in their files until they are read.
The branches work on onnx's own: a branch is made of renamed copies of nodes that read what stands outside by its name,
and in onnx-ir each tensor that leaves a branch would be two.
"""
