"""Tokenizers to which a stranger's text is text: nothing in it becomes a control token."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer


def plain_text(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, changed so that text which spells an added token is encoded as the characters that it is.

    The library does so for added tokens that are marked special; those that are not (`<think>`, `<tool_call>`) are
    marked here. Runs of white space, which some tokenizers add, are text and stay.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    tokenizer.add_special_tokens([_special(token) for token in added if is_control(token)])
    tokenizer.encode_special_tokens = True  # not part of a tokenizer's file
    return tokenizer


def is_control(token: AddedToken) -> bool:
    """Whether an added token is one that no text may spell: all but runs of white space."""
    return bool(token.special or token.content.strip())


def _special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content,
        special=True,
        normalized=token.normalized,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        single_word=token.single_word,
    )
