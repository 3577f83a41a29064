"""Compiling grammars, and refusing those that a tokenizer makes ambiguous."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from core.fake_lm import END, GRAMMAR, TOKENIZERS, WordTokenizer, path_of
from hypothesis import given
from hypothesis import strategies as st

from verdictree.errors import AmbiguousGrammar
from verdictree.families.grammar import label_list
from verdictree.verdict_tree.compiler import compile_tree


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_verdict_is_a_path(name):
    """A path that is not the canonical encoding of its verdict would get another verdict's probability."""
    tokenizer, labels = TOKENIZERS[name]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    for count in (1, 2, 3):
        for named in itertools.product(range(len(labels)), repeat=count):
            text = GRAMMAR.unsafe_answer([labels[i] for i in named])
            (suffix,) = tree.answer_suffixes[tree.continuation_class[named[-1]]]
            assert [*tree.path_tokens(path_of(tree, named)), *suffix] == [*tokenizer(text), END]


def test_golden_tree_of_split_digits():
    """The node count is the cost of every request: a node too many is paid by all."""
    tokenizer, labels = TOKENIZERS["digits split"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    word = {i: w for w, i in tokenizer.ids.items()}
    tries = (tree.root_trie, tree.first_label_trie, tree.continuation_trie)
    assert [[word[token] for token in trie.tokens[1:]] for trie in tries] == [
        ["uns", "afe", "\n", "S", "1"],
        ["\n", "S", "1"],
        [",", "S", "1"],
    ]
    assert tree.root_trie.depths == (0, 1, 2, 3, 4, 5)
    assert tree.shared_subtrees == ((2, 3, 4, 5),)


def test_a_large_first_label_trie_is_no_part_of_the_root():
    """What only a likely verdict needs must not be paid by all."""
    tokenizer, few = TOKENIZERS["long names"]
    many = ["".join(letters) for letters in itertools.product("abc", repeat=4)]
    small, large = (compile_tree(GRAMMAR, labels, tokenizer, [END]) for labels in (few, many))
    assert not small.first_labels_apart and len(small.shared_subtrees[0]) == len(small.first_label_trie)
    assert large.first_labels_apart and len(large.root_trie) == 2
    assert len(large.first_label_trie) == 2 + 3 + 9 + 27


def test_golden_tree_of_merged_ends():
    """The merged tokens stand in the continuation trie alone; the tries before it know of no class."""
    tokenizer, labels = TOKENIZERS["merged ends"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    word = {i: w for w, i in tokenizer.ids.items()} | {END: "END"}

    def spelled(paths):
        return [[word[token] for token in path] for path in paths]

    assert tree.continuation_class == (0, 1, 2, 0)
    assert spelled(tree.first) == [["\n", *prefix] for prefix in ("S1", "S10", "T", "T1")]
    assert spelled(tree.after_class(1).label_paths) == [["2,", *prefix] for prefix in ("S1", "S10", "T", "T1")]
    assert [spelled(paths) for paths in tree.answer_suffixes] == [[["END"]], [["2", "END"]], [["0", "END"]]]
    assert [{word[token] for token in tree.after_class(i).follow_set} for i in range(3)] == [
        {",", "END"},
        {"2,", "2"},
        {"0,", "0"},
    ]
    assert len(tree.continuation_trie) == 1 + 3 * len([",", "S", "1", "T"]) + len(["2", "0"])


def test_visibility_is_ancestry():
    """A node that saw its sibling would be conditioned on a token that was never said."""
    tokenizer, labels = TOKENIZERS["long names"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    for trie in (tree.root_trie, tree.first_label_trie, tree.continuation_trie):
        for node in range(len(trie)):
            ancestors, at = {node}, node
            while at:
                at = trie.parents[at]
                ancestors.add(at)
            assert set(np.flatnonzero(trie.visibility()[node])) == ancestors


@pytest.mark.parametrize(
    ("words", "labels", "grammar", "said"),
    [
        (["safe", "un", "\n", "S", "1", "1,", "2", "2,", ","], ("S1", "S2"), GRAMMAR, "have the same tokens"),
        (["safe", "un", "\n", "A", "A,A", ","], ("A",), GRAMMAR, "merges a whole label"),
        (["safe", "unsafe", "unsafe\n", "S", "1", ","], ("S1",), GRAMMAR, "merges the verdict with"),
        (["safe", "un", "\n", "A", "B", ","], ("A", "A,B"), GRAMMAR, "also ends a label"),
        (["safe", "\n", "A", ","], ("A",), label_list("safe", "safe", "\n", ","), "cannot be told from"),
    ],
)
def test_ambiguous_grammar_is_refused(words, labels, grammar, said):
    """A verdict that could be read two ways would silently share its probability between them."""
    with pytest.raises(AmbiguousGrammar, match=said) as error:
        compile_tree(grammar, labels, WordTokenizer(words), [END])
    assert "'" in str(error.value) and "[" in str(error.value), "the message shows strings and tokens"


def test_label_spelled_differently_beside_another_is_refused():
    """If `A` is one token first and two tokens after `B`, one path cannot stand for both."""

    def encode(text: str) -> list[int]:
        return WordTokenizer(["safe", "un", "\n", "A", "B", ","])(text) + ([99] if "B,A" in text else [])

    with pytest.raises(AmbiguousGrammar, match="differently beside others"):
        compile_tree(GRAMMAR, ("A", "B"), encode, [END])


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5, unique=True))
def test_any_set_of_codes_compiles_to_its_own_strings(labels):
    """Random prefix relations between labels must not drop or merge one."""
    tokenizer = TOKENIZERS["long names"][0]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    answers = [list(tree.path_tokens((0, i))) for i in range(len(labels))]
    assert answers == [tokenizer(f"unsafe\n{label}") for label in labels]
    assert len({*tree.further}) == len(labels)
    matrix = tree.first_label_trie.path_matrix(tree.first, tree.vocabulary)
    assert matrix.sum(axis=0).tolist() == [len(path) for path in tree.first]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("first_labels_apart", [False, True])
def test_a_path_names_its_labels(name, first_labels_apart):
    """Indices of paths are taken apart in one place: one that is off gives a label another one's probability."""
    tokenizer, labels = TOKENIZERS[name]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END], first_labels_apart)
    for count in range(4):
        for named in itertools.product(range(len(labels)), repeat=count):
            path = tree.path(0, named)
            assert path == path_of(tree, named) and tree.labels_of(path) == list(named)
            onward = tree.onward(path)
            for label in range(len(labels)):
                longer = tree.path_tokens((*path, onward.index_of(label)))
                assert longer == (*tree.path_tokens(path), *onward.label_paths[label])
