"""The steps of a served guard as Triton's Python backend runs them, each in its own process.

Their names are the one door between a release and this software: a release on disk holds adapters that import nothing
else, and is served by later versions too. What is behind the door may change, the names may not.

    verdictree_serving.triton_steps.tokenizer   TokenizerStep
    verdictree_serving.triton_steps.marginals   MarginalsStep
    verdictree_serving.triton_steps.router      RouterStep

Beside them stands what they need: `split` (which release answers while there are two) and `shadow_log`; `errors`,
`refusals` and `inner_errors`, by which a step refuses one request of a batch and answers the others.

    request ─► tokenizer ─► [guard_lm: ONNX Runtime] ─► marginals ─► verdict         guard, guard_candidate, …
    request ─► router ─► one of them, or both                                        guard, while there are two

The modules can only be imported inside Triton's model process, which provides `triton_python_backend_utils`.
"""
