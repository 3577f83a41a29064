"""From a checkpoint's chat template to constant prompts and a verdict tree.

checkpoint.py           what `checkpoints` loads ─► model, tokenizer, chat template
    ↓                   (time_limit.py bounds what a stranger's template may take)
rendering.py            a question about a conversation ─► the whole prompt
    ↓                   (policy_text.py: nothing in a policy acts there)
conversation_format.py  ─► how the template writes a conversation: its turns, white space, how many it reads
    ↓
split.py                ─► prefix │ conversation │ suffix, cut where no tokens merge
    ↓                   (named_categories.py: does the prompt say what the policy says?
    ↓                    answer_frame.py: what stands before an answer, and what ends it)
compilation.py          policies ─► their prompts, the tree that they share, the room that they leave
"""
