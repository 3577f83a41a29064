"""Stands in for NVIDIA's C++ `onnxruntime` backend, with the same configuration keys, where that is not installed.

    config.py    config.pbtxt's tensors, against the graph's       options.py       its parameters → ONNX Runtime's
    backend.py   a batch of requests → one run of the graph        graph_limits.py  what a request may ask of it
    lanes.py     which run is next, and long requests in many

`backends/onnxruntime/model.py`, which Triton loads, is the adapter to this.
"""
