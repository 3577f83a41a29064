"""The graph as a torch module: a guard's own layers, run over the tokens of many requests packed into one sequence.

    compiled_policies.py ── prefix_cache.py ── trie_paths.py      what policies decide, as constants
            │
            ▼
    guard_graph.py     1. prefill pass: conversation, suffix, root trie          prefill_pass.py
                       2. which paths are likely enough                          trie_paths.py
                       3. expansion, depth by depth, of those paths              blocks.py
            │
            ▼
    attention.py       the architecture's attention, replaced by one over packed tokens
    last_layer.py      the last layer at the tokens that are read; llama4.py: its rotary embedding in real numbers

`onnx_file` traces this module. Nothing here knows of ONNX, files or releases.
"""
