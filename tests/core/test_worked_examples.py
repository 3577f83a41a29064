"""The worked examples in the docstrings of the verdict tree's modules, drawn again by the code itself."""

from __future__ import annotations

from functools import cache

import pytest
from core.fake_lm import explore
from core.real_encodings import llama_3, qwen
from core.test_families import StringLM
from drawings import shown, stands_in, table

from verdictree import families
from verdictree.families.grammar import label_list
from verdictree.verdict_tree import greedy, marginals, spelling, tree
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.marginals import Marginalizer
from verdictree.verdict_tree.spelling import Spelling

END = 151_645  # <|im_end|>
LABELS = ("S1", "S10", "S2")
# What the guard of the examples answers, and how often.
ANSWERS = {"safe": 0.30, "unsafe\nS1": 0.20, "unsafe\nS1,S2": 0.30, "unsafe\nS10": 0.15, "unsafe\nS2,S10": 0.05}


@cache
def qwen_tree(first_labels_apart=None):
    grammar = label_list("safe", "unsafe", "\n", ",")
    return compile_tree(grammar, LABELS, qwen().encode, [END], first_labels_apart)


def spell(tokens):
    return " ".join("END" if token == END else shown(qwen().decode([token])) for token in tokens)


def explored(threshold):
    masses = {(*qwen().encode(text), END): p for text, p in ANSWERS.items()}
    return explore(StringLM(masses, END + 1), qwen_tree(), max_labels=2, epsilon=threshold)


def trie_rows(trie, paths, labels, follow_set):
    """For each node what was said before it, and what the next token decides there."""
    for node, said in enumerate(trie.sequences()):
        longer = sorted({path[len(said)] for path in paths if path[: len(said)] == said and len(path) > len(said)})
        ended = [label for label, path in labels.items() if path == said and longer]
        next_tokens = ", ".join(spell([token]) for token in longer)
        yield (
            str(node),
            spell(said) or "·",
            "; ".join([next_tokens, *(f"{spell(follow_set)}: {label} ends" for label in ended)]),
        )


def test_the_three_tries():
    """A reader who takes the wrong picture of the tree reads everything else wrongly."""
    one = qwen_tree()
    first, after = one.after_list(0), one.after_class(0)
    whole = {label: (*one.unsafe, *path) for label, path in zip(LABELS, first.label_paths, strict=True)}
    parts = [
        table(
            [
                ("verdict_tokens", " | ".join(map(spell, one.verdict_tokens))),
                ("first", " | ".join(map(spell, one.first))),
                ("further", " | ".join(map(spell, one.further))),
                ("answer_suffixes", " | ".join(map(spell, one.answer_suffixes[0]))),
                ("shared_subtrees", "the root trie's nodes " + ", ".join(map(str, one.shared_subtrees[0]))),
            ]
        )
    ]
    for name, trie, paths, labels in (
        ("root trie", one.root_trie, (*one.verdict_tokens, *whole.values()), whole),
        ("first-label trie", one.first_label_trie, first.label_paths, dict(zip(LABELS, one.first, strict=True))),
        (
            "continuation trie",
            one.continuation_trie,
            (*after.label_paths, *after.answer_suffixes),
            dict(zip(LABELS, after.label_paths, strict=True)),
        ),
    ):
        rows = table([("node", "said before", "the next token"), *trie_rows(trie, paths, labels, after.follow_set)])
        parts.append(f"{name}\n{rows}")
    path = one.path(0, [0, 2])
    named = ", ".join(LABELS[label] for label in one.labels_of(path))
    parts.append(f"path {path}: list {path[0]}, then {named}: {spell(one.path_tokens(path))}")
    stands_in(tree, "\n\n".join(parts))


def test_stable_prefixes():
    """Which tokens of a label count, where its end merges with what follows, is told nowhere else."""
    encoding = llama_3()
    own = Spelling(families.family("nemotron").grammar, ("Sexual", "Sexual (minor)"), encoding.encode)
    answer = own.lists[0]
    begin = len(own.tokens(answer))  # up to the verdict
    minor, end = "Sexual (minor)", own.grammar.answer_suffixes[0]

    def rest(tokens):
        return " ".join(shown(encoding.decode([token])) for token in tokens[begin:])

    stable = own._stable_prefix(answer, [minor])
    (plain, merged) = own.continuations()
    rows = [
        ("alone", rest(own.tokens(answer, [minor]))),
        ("another follows", rest(own.tokens(answer, [minor, "Sexual"]))),
        ("the list ends", rest(own.tokens(answer, [minor], end))),
        ("stable prefix", rest(stable)),
        ("unstable tokens", str(own._num_unstable[minor])),
    ]
    for label, continuation in (("Sexual", plain), (minor, merged)):
        follow_set = [shown(encoding.decode([token])) for token in sorted(continuation.follow_set)]
        rows.append((f"FOLLOW set of {label}", " ".join(follow_set)))
    stands_in(spelling, table(rows))


def test_greedy_choices(monkeypatch):
    """The tokens that may be chosen at a node depend on where labels end: easy to get wrong, and to read wrongly."""
    rows = [("node", "may be chosen", "chosen")]
    best = greedy._Decoder.best

    def recorded(self, node, allowed):
        token = best(self, node, allowed)
        rows.append((str(node), spell(sorted(allowed)), spell([token])))
        return token

    monkeypatch.setattr(greedy._Decoder, "best", recorded)
    choose = greedy._Decoder.choose
    names = {id(qwen_tree().root_trie): "root trie", id(qwen_tree().first_label_trie): "first-label trie"}

    def named(self, trie, paths):
        rows.append((names.get(id(trie), "continuation trie"), "", ""))
        index = choose(self, trie, paths)
        rows.append((f"→ {spell(paths[index])}", "", ""))
        return index

    monkeypatch.setattr(greedy._Decoder, "choose", named)
    chosen = greedy.follow(qwen_tree(), explored(0.01))
    assert chosen.text(qwen_tree()) == "unsafe\nS1,S2" and chosen.complete
    heading, *lines = rows
    body = table([heading, *(row for row in lines if row[1])]).split("\n")
    drawn = iter(body[1:])
    text = [body[0]] + [next(drawn) if row[1] else row[0] for row in lines]
    stands_in(greedy, "\n".join(text))


def test_masses(monkeypatch):
    """Where a path's probability goes: to a label, to complete answers, or to what was not followed."""
    one, rows = qwen_tree(), []
    add = Marginalizer._add_label

    def recorded(self, path, reach, named_before, explored, masses):
        before = (masses.marginal.copy(), masses.complete, masses.cut_off)
        places = add(self, path, reach, named_before, explored, masses)
        label = one.label_of(path[-1])
        rows.append(
            (
                spell(one.path_tokens(path)),
                f"{reach:.2f}",
                f"{masses.marginal[label] - before[0][label]:.2f} to {LABELS[label]}",
                f"{masses.complete - before[1]:.2f}",
                f"{masses.cut_off - before[2]:.2f}",
            )
        )
        return places

    monkeypatch.setattr(Marginalizer, "_add_label", recorded)
    estimates = Marginalizer(one)(explored(0.10))
    total = ", ".join(f"{label} {p:.2f}" for label, p in zip(LABELS, estimates.marginal, strict=True))
    heading = ("path", "reach", "marginal", "complete", "cut off")
    drawn = table([heading, *rows])
    answers = table([(shown(text), f"{p:.2f}") for text, p in ANSWERS.items()])
    end = f"marginals: {total}; unexplored {estimates.unexplored:.2f}, off grammar {estimates.off_grammar:.2f}"
    stands_in(marginals, f"{answers}\n\n{drawn}\n\n{end}")
    truth = [sum(p for text, p in ANSWERS.items() if label in text.partition("\n")[2].split(",")) for label in LABELS]
    assert all(estimates.marginal[i] <= p + 1e-9 for i, p in enumerate(truth))
    assert all(p <= estimates.marginal[i] + estimates.unexplored + 1e-9 for i, p in enumerate(truth))
    assert estimates.off_grammar == pytest.approx(0, abs=1e-9)
