"""What stands around an answer: what the template writes before it, and what ends the model's turn."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
import msgspec

from verdictree.errors import UnsupportedGuard
from verdictree.families.grammar import VerdictGrammar
from verdictree.releases.prompt import Prompt
from verdictree_export.prompts.checkpoint import Checkpoint


def grammar_after(prompts: Sequence[Prompt], grammar: VerdictGrammar) -> VerdictGrammar:
    """The grammar of what follows these prompts: no answer prefix where the chat template has written it already."""
    if grammar.answer_prefix and all(prompt.suffix.endswith(grammar.answer_prefix) for prompt in prompts):
        return msgspec.structs.replace(grammar, answer_prefix="")
    return grammar


def end_tokens(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ids that end the model's turn: those its generation config declares and what its template writes there."""
    declared = checkpoint.model.generation_config.eos_token_id
    ends = {declared} if isinstance(declared, int) else set(declared or ())
    turn_end = _turn_end_token(checkpoint)
    if turn_end is not None:
        ends.add(turn_end)
    if not ends:
        raise UnsupportedGuard("the checkpoint names no end-of-turn token; set eos_token_id in its generation config")
    return tuple(sorted(ends))


def _turn_end_token(checkpoint: Checkpoint) -> int | None:
    answer = "safe"
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
    try:
        text = checkpoint.tokenizer.apply_chat_template(turns, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError):  # no template, or one that cannot do without a question
        return None
    after = text.rpartition(answer)[2]
    ids = checkpoint.encode(after)
    return ids[0] if ids and ids[0] in checkpoint.tokenizer.added_tokens_decoder else None
