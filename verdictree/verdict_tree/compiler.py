"""Compile a grammar and its labels into a verdict tree, with the tokenizer of the model that will answer.

What comes out for three labels is drawn in `tree`. The steps: encode every answer of one and two labels (`spelling`);
cut off each path what was said before it, the verdict or the label before; refuse what could be read in two ways; make
tries of the paths.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from verdictree.families.grammar import VerdictGrammar
from verdictree.verdict_tree.spelling import Encode, Spelling, check
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens, Trie

# About as many more tokens take as long as a pass by itself, which reads all weights once more.
_LARGEST_SHARED_SUBTREE = 32


def compile_tree(
    grammar: VerdictGrammar,
    labels: Sequence[str],
    encode: Encode,
    end_tokens: Iterable[int],
    first_labels_apart: bool | None = None,
) -> VerdictTree:
    """Compile the verdict tree of `labels`.

    `encode` is the model's tokenizer without special tokens; it sees whole verdict strings only, since tokens merge
    across the borders of their parts. `end_tokens` are the ids that end the model's turn. `first_labels_apart` says
    whether first-label tries are evaluated by themselves; None: where that is cheaper.

    Raises AmbiguousGrammar, naming strings and tokens, where the tokenizer makes two verdicts share their tokens,
    lets a label's tokens depend on its neighbours, or hides where a label ends.
    """
    spelling = Spelling(grammar, tuple(labels), functools.cache(encode))
    verdicts, whole_paths, continuations = spelling.verdicts(), spelling.first(), spelling.continuations()
    check(spelling, verdicts, whole_paths, continuations)
    lists, classes = _lists(spelling, verdicts, whole_paths), tuple(dict.fromkeys(continuations))
    first = tuple(itertools.chain.from_iterable(each.first for each in lists))
    further = tuple(itertools.chain.from_iterable(each.further for each in classes))
    ends = tuple(sorted(set(end_tokens)))
    endings: tuple[Tokens, ...] = ((),) if grammar.goes_on else tuple((end,) for end in ends)
    suffixes = tuple(tuple(suffix + end for suffix in each.answer_suffixes for end in endings) for each in classes)
    root_trie, shared_subtrees = _root(verdicts, [each.verdict for each in lists], first, first_labels_apart)
    return VerdictTree(
        grammar=grammar,
        labels=tuple(labels),
        verdict_tokens=verdicts,
        first=first,
        continuation_class=tuple(classes.index(each) for each in continuations),
        further=further,
        answer_suffixes=suffixes,
        root_trie=root_trie,
        first_label_trie=Trie.of(first),
        shared_subtrees=shared_subtrees,
        continuation_trie=Trie.of([*further, *itertools.chain(*suffixes)]),
        answer_prefix_length=_separator_length(verdicts, encode(grammar.answer_prefix), 0),
        first_spelling=tuple(each.spelled_from for each in lists),
        further_spelling=tuple(_separator_length(each.further, encode(grammar.separator), 0) for each in classes),
        end_tokens=ends,
        vocabulary=tuple(sorted({*ends, *itertools.chain(*verdicts, *first, *further, *itertools.chain(*suffixes))})),
    )


class _List(NamedTuple):
    """The verdict that opens a list, the paths from it to each first label, and where these spell the label."""

    verdict: Tokens
    first: tuple[Tokens, ...]
    spelled_from: int


def _lists(spelling: Spelling, verdicts: Sequence[Tokens], whole_paths: Sequence[Tokens]) -> list[_List]:
    """Cut the verdict off the paths from the prompt to the first labels, list by list."""
    lists, size = [], len(spelling.labels)
    for number, answer in enumerate(spelling.lists):
        paths = whole_paths[number * size : (number + 1) * size]
        verdict = verdicts[spelling.grammar.answers.index(answer)]
        before_labels = spelling.encode(spelling.grammar.text(answer) + (answer.list_prefix or ""))
        spelled_from = _separator_length(paths, before_labels, len(verdict)) - len(verdict)
        lists.append(_List(verdict, tuple(path[len(verdict) :] for path in paths), spelled_from))
    return lists


def _root(
    verdicts: Sequence[Tokens], opened: Sequence[Tokens], first: Sequence[Tokens], apart: bool | None
) -> tuple[Trie, tuple[tuple[int, ...], ...]]:
    """The root trie, and for each list the nodes in it that are those of the first-label trie, if they are in it."""
    alone, first_label_trie = Trie.of(verdicts), Trie.of(first)
    whole = Trie.of([*verdicts, *((*verdict, *path) for verdict in opened for path in first)])
    if apart is None:
        apart = len(whole) - len(alone) > _LARGEST_SHARED_SUBTREE
    if apart:
        return alone, ()
    onward = first_label_trie.sequences()
    return whole, tuple(tuple(whole.node_after((*verdict, *tokens)) for tokens in onward) for verdict in opened)


def _separator_length(paths: Iterable[Tokens], separator: Sequence[int], otherwise: int) -> int:
    # Where the separator's tokens merge with the label's, the merged token spells the label too.
    begin = tuple(separator)
    apart = all(path[: len(begin)] == begin and len(path) > len(begin) for path in paths)
    return len(begin) if apart else otherwise
