"""Triton step `guard_marginals`: logits at the nodes of the verdict tree in, verdict JSON out."""

from verdictree_serving.triton_steps.marginals import MarginalsStep as TritonPythonModel  # noqa: F401
