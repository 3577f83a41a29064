"""Turns a guard's checkpoint into a release: an ONNX graph with a verdict head, and what is needed to serve it."""
