"""Load a guard: a Hugging Face folder or hub id, a GGUF file, or the guard that a registry package carries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import torch

from verdictree.conversation import Message
from verdictree.errors import UnsupportedGuard
from verdictree.runtime.plain_text import is_control
from verdictree_export.checkpoints import adapter as adapters
from verdictree_export.checkpoints import loading, source
from verdictree_export.prompts.time_limit import TimeIsUp, time_limit
from verdictree_export.prompts.vector_math import settle_vector_math

_TEMPLATE_SECONDS = 10.0
_DEFAULT = "default"


ContentForm = Callable[[Sequence[Message]], list[dict[str, Any]]]
"""Messages as a chat template takes them."""


class TemplateFailed(UnsupportedGuard, jinja2.TemplateError):
    """A chat template that fails on a conversation, on purpose (`raise_exception`) or by a fault of its own.

    It is caught as the jinja2.TemplateError that it is where another conversation can be tried, and is told where not.
    """


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model in evaluation mode, with its tokenizer.

    `content_forms` is how a chat template takes messages, by the family as which the checkpoint is asked and the
    template: found out once, by `rendering`.
    """

    name: str
    model: Any
    tokenizer: Any
    content_forms: dict[tuple[str, str | None], ContentForm] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; text that spells a control token becomes that token."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def control_tokens(self) -> dict[int, str]:
        """The added tokens that no text may spell, by their ids."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {number: token.content for number, token in added if is_control(token)}

    @property
    def template(self) -> str | None:
        """The chat template: the only one, or of several that of the name "default"; None where there is none.

        Raises UnsupportedGuard, naming them, for several of which none has that name.
        """
        given = self.tokenizer.chat_template
        if isinstance(given, dict):
            if _DEFAULT not in given and len(given) > 1:
                raise UnsupportedGuard(
                    f"expected one chat template of {self.name!r}, or one that is named {_DEFAULT!r}, got "
                    f"{', '.join(map(repr, given))}; keep the one that moderates in tokenizer_config.json, or as "
                    "chat_template.jinja"
                )
            given = given.get(_DEFAULT) or next(iter(given.values()), None)
        return str(given) if given else None

    def render(self, messages: Sequence[dict[str, Any]], **arguments: Any) -> str:
        """The checkpoint's own chat template, up to where the model's answer begins.

        The template is a stranger's program, in a sandbox without files and network. Raises UnsupportedGuard for one
        that is no template or runs for more than 10 s, and TemplateFailed, which is a jinja2.TemplateError too, for one
        that fails on these messages. Its memory is bounded by the process's own limit only (`ulimit -v`).
        """
        template = self.template
        try:
            with time_limit(_TEMPLATE_SECONDS):
                text = self.tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=True, **arguments
                )
        except (TimeIsUp, MemoryError, RecursionError) as exc:
            raise UnsupportedGuard(
                f"expected a chat template that ends, got one of {self.name!r} that does not "
                f"({str(exc) or type(exc).__name__}); read it before you trust this checkpoint"
            ) from exc
        except jinja2.TemplateSyntaxError as exc:
            raise UnsupportedGuard(
                f"expected a chat template that Jinja can read, got one of {self.name!r} with a fault in line "
                f"{exc.lineno}: {exc.message}; download tokenizer_config.json or chat_template.jinja again, or "
                "mend that line"
            ) from exc
        except jinja2.TemplateError as exc:
            raise TemplateFailed(str(exc) or type(exc).__name__) from exc
        except Exception as exc:  # it is a program: whatever that can raise
            if template is None:  # transformers' own words: there is none
                raise
            raise TemplateFailed(f"{type(exc).__name__}: {exc}") from exc
        return str(text)

    @property
    def max_positions(self) -> int:
        """The longest sequence, in tokens, that the model was made for.

        Llama 4 attends within chunks in some layers; a sequence that fits into one looks the same to both kinds.
        """
        config = self.model.config
        return int(min(config.max_position_embeddings, getattr(config, "attention_chunk_size", None) or math.inf))


def load(given: str, adapter: Path | None = None, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load a checkpoint, its weights as `dtype`, and merge a LoRA adapter into it.

    `given` is a folder, a hub id, a `.gguf` file, or "embedded".
    Raises UnsupportedGuard, saying what to give instead, where nothing can be loaded from it.
    """
    settle_vector_math()
    found = source.locate(given)
    model, tokenizer = loading.load_whole(found, dtype)
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the default one leaves the soft cap out (Gemma 2)
    if adapter is not None:
        model = adapters.merged(model, adapter)
    return _checkpoint(found, model, tokenizer)


def load_weightless(given: str) -> Checkpoint:
    """A checkpoint's configuration and tokenizer, its model without weights (on torch's meta device).

    Raises UnsupportedGuard as `load` does.
    """
    found = source.locate(given)
    return _checkpoint(found, *loading.load_without_weights(found))


def save_weightless(guard: Checkpoint, folder: Path) -> None:
    """Write what `load_weightless` reads."""
    for part in (guard.model.config, guard.model.generation_config, guard.tokenizer):
        part.save_pretrained(folder)


def _checkpoint(found: source.Source, model: Any, tokenizer: Any) -> Checkpoint:
    guard = Checkpoint(found.name, model.eval(), tokenizer)
    named = tokenizer.chat_template
    if isinstance(named, dict) and (_DEFAULT in named or len(named) == 1):
        tokenizer.chat_template = guard.template  # so that everything asks by the same one
    return guard
