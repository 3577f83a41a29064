"""From a checkpoint's chat template to constant prompts and a verdict tree.

checkpoint.py    folder, hub id, GGUF file or package ─► model, tokenizer, chat template
    ↓            (time_limit.py bounds what a stranger's template may take)
split.py         the rendered prompt ─► prefix │ conversation │ suffix, cut where no tokens merge
    ↓
compilation.py   policies ─► their prompts, the tree that they share, the room that they leave
"""
