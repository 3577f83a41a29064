"""The graph as a torch module: a guard's own layers, run over the tokens of many requests packed into one sequence.

    compiled_policies.py ── prefix_cache.py ── trie_paths.py      what policies decide, as constants
            │
            ▼
    guard_graph.py     1. prefill pass: conversation, suffix, root trie            prefill_pass.py
                       2. which paths are likely enough                            frontier.py
                       3. expansion, depth by depth, of those paths                blocks.py
                       4. what is told of each node, instead of all logits         verdict_head.py
            │
            ▼
    attention.py       the architecture's attention, replaced by one over packed tokens; key_values.py: its cache
    last_layer.py      the last layer at the tokens that are read; llama4.py: its rotary embedding in real numbers
    replaced.py        by which both replace a part of the architecture for the time of a run

`onnx_file` traces this module. Nothing here knows of ONNX, files or releases.
"""
