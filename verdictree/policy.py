"""The taxonomy: which categories a guard is asked about, read from YAML and validated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import yaml

from verdictree.errors import InvalidPolicy


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One hazard: the code that the guard answers with, its name, and what it covers."""

    code: str
    name: str
    description: str = ""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named, versioned list of categories, in the order in which scores are reported.

    `instructions` is added to the question that the guard is asked, where its family asks one in its own words.
    """

    name: str
    version: str
    categories: tuple[Category, ...]
    instructions: str = ""

    @property
    def codes(self) -> tuple[str, ...]:
        """The category codes, in the policy's order."""
        return tuple(category.code for category in self.categories)


def load(path: Path) -> Policy:
    """Read a policy file.

    Raises InvalidPolicy, naming the file, for a missing file, invalid YAML, unknown or missing fields,
    no category, or a category code that is empty, repeated or contains white space or a comma.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        policy = msgspec.convert(raw, Policy)
    except FileNotFoundError as exc:
        raise InvalidPolicy(f"{path}: no such policy file; give the path of a policy YAML") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidPolicy(f"{path}: cannot be read as UTF-8 text: {exc}") from exc
    except yaml.YAMLError as exc:
        raise InvalidPolicy(f"{path}: not valid YAML: {' '.join(str(exc).split())}") from exc
    except msgspec.ValidationError as exc:
        raise InvalidPolicy(f"{path}: {exc}; a policy has name, version and categories (code, name)") from exc
    _check_codes(policy, path)
    return policy


def _check_codes(policy: Policy, path: Path) -> None:
    if not policy.categories:
        raise InvalidPolicy(f"{path}: expected at least one category, got none")
    for code, count in Counter(policy.codes).items():
        if count > 1:
            raise InvalidPolicy(f"{path}: category code {code!r} stands {count} times; codes must differ")
        if not code or code != "".join(code.split()) or "," in code:
            raise InvalidPolicy(f"{path}: category code {code!r} must be one word without white space or comma")
