"""Does a prompt say what the policy says? A guard whose categories are fixed would report its own under other names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import GuardFamily, Question
from verdictree.policy import Category, Policy
from verdictree.releases.prompt import Prompt

# A line that lists a category: its code, a colon, its name up to the full stop that most templates put behind it.
_LISTED = re.compile(r"^[ \t]*(?:[-*][ \t]*)?([A-Za-z]+[0-9]+)[ \t]*[:.][ \t]*(.*?)[.]?[ \t]*$", re.MULTILINE)


def check_named(family: GuardFamily, question: Question, constant: str) -> None:
    """Raise UnsupportedGuard unless the prompt's `constant` text names each of the question's categories.

    By the code and the name where the guard answers with codes, by the name where it answers with names, and with its
    description where the policy gives one. Where the guard answers fixed questions, the codes must be theirs; where it
    is asked about one category at a time, its template says what it refuses.
    """
    grammar, policy = family.grammar, question.policy
    if question.role not in grammar.roles:
        raise UnsupportedGuard(
            f"family {family.name} judges messages of role {' and '.join(grammar.roles)} only; give the policy "
            f"`roles: [{', '.join(grammar.roles)}]`"
        )
    if grammar.per_category:
        return
    answers = [answer for answer in grammar.answers if question.role in answer.roles]
    if all(answer.list_prefix is None for answer in answers):
        _check_answered(family, question, sorted({name for answer in answers for name in answer.names}))
        return
    by_code = grammar.labels_are == "code"
    missing = [each for each in policy.categories if not _is_named(each, constant, by_code)]
    if missing:
        raise UnsupportedGuard(
            f"the prompt about messages of role {question.role} never names "
            f"{', '.join(_called(each, by_code) for each in missing)}: {_fix(family, constant, by_code)}"
        )
    undescribed = [each.code for each in policy.categories if each.description not in constant]
    if undescribed:
        raise UnsupportedGuard(
            f"the prompt never holds the description of {', '.join(undescribed)}: the checkpoint's chat template has "
            "fixed categories, or takes names only; leave the descriptions out of the policy"
        )


def labels_of(family: GuardFamily, policies: Sequence[Policy], prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """What a guard may write in its lists: the policies' labels, then those of its own that a prompt lists.

    A policy may keep a part of a guard's fixed categories. The guard still names the others, before those that are
    asked about, so answers that hold them are followed too.
    """
    grammar = family.grammar
    if grammar.per_category:
        return ()
    constants = [prompt.prefix + prompt.uncached_before + prompt.uncached_after + prompt.suffix for prompt in prompts]
    own = [label for label in family.labels if any(_word(label).search(constant) for constant in constants)]
    return tuple(dict.fromkeys([*(grammar.label(each) for one in policies for each in one.categories), *own]))


def _check_answered(family: GuardFamily, question: Question, known: Sequence[str]) -> None:
    missing = [code for code in question.policy.codes if code not in known]
    if missing:
        raise UnsupportedGuard(
            f"expected categories among {', '.join(known)}, which family {family.name} answers for messages of "
            f"role {question.role}, got {', '.join(missing)}; change the policy's categories or its roles"
        )
    described = [category.code for category in question.policy.categories if category.description]
    if described:
        raise UnsupportedGuard(
            f"expected no description of {', '.join(described)}: family {family.name} is asked fixed questions; leave "
            "the descriptions out of the policy"
        )


def _is_named(category: Category, constant: str, by_code: bool) -> bool:
    if not by_code:
        return bool(_word(category.name).search(constant))
    return bool(re.search(rf"(?<!\w){re.escape(category.code)}[:.)]?\s+{re.escape(category.name)}(?!\w)", constant))


def _word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")


def _called(category: Category, by_code: bool) -> str:
    return f"{category.code}: {category.name}" if by_code else category.name


def _fix(family: GuardFamily, constant: str, by_code: bool) -> str:
    if by_code:
        listed = [f"{code}: {name}" for code, name in _LISTED.findall(constant)]
    else:
        listed = [label for label in family.labels if _word(label).search(constant)]
    fix = "a policy may keep some of them, and show one by another name with display_name, but not redefine it"
    if listed:
        return f"its categories are fixed ({'; '.join(listed)}): {fix}"
    return f"the checkpoint's chat template has fixed categories: use a policy with those; {fix}"
