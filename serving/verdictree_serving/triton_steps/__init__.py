"""The steps of a served guard as Triton's Python backend runs them, each in its own process.

Their names are the one door between a release and this software: a release on disk holds adapters that import nothing
else, and is served by later versions too. What is behind the door may change, the names may not.

    verdictree_serving.triton_steps.tokenizer   TokenizerStep
    verdictree_serving.triton_steps.marginals   MarginalsStep
    verdictree_serving.triton_steps.router      RouterStep

The modules can only be imported inside Triton's model process, which provides `triton_python_backend_utils`.
"""
