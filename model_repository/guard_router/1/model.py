"""Triton model `guard_router`: request JSON in, the verdict of the release that it belongs to out."""

from verdictree_serving.triton_steps.router import RouterStep as TritonPythonModel  # noqa: F401
