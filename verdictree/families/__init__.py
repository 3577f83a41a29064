"""The guard families: how each kind of guard is asked, and what it may answer.

    guard_family.py   what a family is              llama_guard.py  qwen3guard.py  wildguard.py
    grammar.py        which strings it may answer   nemotron.py     yes_or_no.py   instruct.py
    turn_marks.py     marks of its format in a      polyguard.py
                      stranger's text, quoted
    marked_text.py    control tokens between texts  one declaration each: what it lists in FAMILIES
    transcript.py     from a place in a rendered    can be exported
                      conversation to its message

A family knows strings only: how a tokenizer spells them is `verdict_tree`'s, where a checkpoint's template says them
the export's `prompts`.
"""

from __future__ import annotations

import importlib
import pkgutil

from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import GuardFamily


def all_families() -> tuple[GuardFamily, ...]:
    """Every family, in the order of the modules' names."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(family for module in modules for family in getattr(module, "FAMILIES", ()))


def family(name: str) -> GuardFamily:
    """The family of this name; UnsupportedGuard, naming the known ones, where there is none."""
    for candidate in all_families():
        if candidate.name == name:
            return candidate
    raise UnsupportedGuard(f"expected a guard family among {', '.join(names())}, got {name!r}")


def names() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(candidate.name for candidate in all_families())


def recognize(chat_template: str) -> GuardFamily:
    """The first family whose marks all stand in a checkpoint's chat template; `instruct` where none's do.

    A guard that is asked through another model's template (Nemotron, WildGuard) cannot be told by it: name its family.
    Raises UnsupportedGuard for a guard that reasons before it answers.
    """
    if all(mark in chat_template for mark in ("guardian_config", "think")) and "criteria_id" not in chat_template:
        raise UnsupportedGuard(
            "this checkpoint reasons in free text before it rules; a verdict tree holds short answers only: use "
            "Granite Guardian 3.3, which can do without, or an older one"
        )
    marked = (each for each in all_families() if each.template_marks)
    matching = (each for each in marked if all(mark in chat_template for mark in each.template_marks))
    return next(matching, family("instruct"))
