"""Triton step `guard_tokenizer`: request JSON in, token ids out."""

from verdictree_serving.triton_steps.tokenizer import TokenizerStep as TritonPythonModel  # noqa: F401
