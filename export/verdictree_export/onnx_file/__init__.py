"""The ONNX file: traced, rewritten, saved, run.

    onnx_model.py    torch module ─► ONNX (optimum's exporter) ─► passes ─► model.onnx, weights.bin, policies.bin
    passes.py        what is done after tracing; rotary.py and branches.py are the two large ones
    graph_index.py   who makes and who reads what, which every pass asks
    graph_session.py an exported graph, run during the export
    graph_prefill.py a new prompt's prefix, computed by an exported graph itself

No pass changes what the graph computes: each is tested by running ONNX Runtime before and after.
"""
