"""The taxonomy: which categories a guard is asked about, read from YAML and validated."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Self

import msgspec

from verdictree import shipped_policies
from verdictree.conversation import ROLES, Role
from verdictree.errors import InvalidPolicy
from verdictree.policy_slips import fix
from verdictree.text.visible import bounded, quoted, visible
from verdictree.text.yaml_lines import YamlError, parse

UNSAFE = "unsafe"  # what P(unsafe) is called beside the categories' codes
_Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # lone surrogates too: no text at all
_QUOTED = 200  # characters of a message, which may quote the file's own keys


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One hazard: the code that verdicts report it by, its name, and what it covers.

    Name and description are what the guard is told; verdicts show `display_name` instead where there is one. The guard
    is asked about the category in messages of `roles` only. `exemplars` are sentences that fall under it, by which
    `verdictree policy check` sees whether the guard knows it. From `threshold` on, a probability, the category is
    flagged; it overrides that of the release's calibration. From `review` on, a probability too, and below the
    threshold, it is for people to look at: that is its review band, and without `review` it has none.
    `calibrated=False` keeps the raw marginal as the category's score, even where the release is calibrated.
    """

    code: str
    name: str
    description: str = ""
    threshold: _Probability | None = None
    calibrated: bool = True
    display_name: str = ""
    roles: tuple[Role, ...] = ROLES
    exemplars: tuple[str, ...] = ()
    review: _Probability | None = None

    @property
    def shown(self) -> str:
        """The name that verdicts and reports show."""
        return self.display_name or self.name


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named, versioned list of categories, in the order in which scores are reported.

    `instructions` is added to the question that the guard is asked, where its family asks one in its own words.
    `roles` are those whose messages the policy judges. `threshold` and `review` are of the whole answer, by P(unsafe),
    as a category's are of its score; no category inherits them.
    """

    name: str
    version: str
    categories: tuple[Category, ...]
    instructions: str = ""
    roles: tuple[Role, ...] = ROLES
    threshold: _Probability | None = None
    review: _Probability | None = None
    exact: bool = False

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a policy file, or by its bare name one that ships, as `embedded`.

        Raises InvalidPolicy, naming the file and the line, for a missing file, invalid YAML, a repeated key, unknown or
        missing fields, a name that is no word, no category, no role, a category code that is empty, repeated, reserved
        or contains white space or a comma, or a `review` that is not below its threshold.
        """
        try:
            text = shipped_policies.locate(path).read_text(encoding="utf-8")
        except FileNotFoundError as exc:
            raise InvalidPolicy(
                f"{path}: no such policy file; give the path of a policy YAML, or the name of one that ships: "
                f"{', '.join(shipped_policies.names())}"
            ) from exc
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            raise InvalidPolicy(f"{path}:{line}: cannot be read as UTF-8 text: {exc}; save the file as UTF-8") from exc
        except OSError as exc:
            raise InvalidPolicy(f"{path}: cannot be read as UTF-8 text: {exc}; give the path of a policy YAML") from exc
        try:
            document = parse(text)
            policy = msgspec.convert(document.value, cls)
        except YamlError as exc:
            raise InvalidPolicy(f"{path}:{exc.line}: {exc}") from exc
        except msgspec.ValidationError as exc:
            said = bounded(str(exc), _QUOTED)
            raise InvalidPolicy(f"{path}:{document.line_of_error(str(exc))}: {said}; {fix(said)}") from exc
        fault = _fault(policy)
        if fault:
            place, message = fault
            raise InvalidPolicy(f"{path}:{document.line(place)}: {message}")
        return policy

    @property
    def codes(self) -> tuple[str, ...]:
        """The category codes, in the policy's order."""
        return tuple(category.code for category in self.categories)

    def as_asked(self) -> Self:
        """The policy without what no raw score depends on: shown names, exemplars, review bands, `exact`.

        The categories' thresholds stay, for releases that exist are known by them.
        """
        plain = {"display_name": "", "exemplars": (), "review": None}
        asked = tuple(msgspec.structs.replace(each, **plain) for each in self.categories)
        return msgspec.structs.replace(self, categories=asked, threshold=None, review=None, exact=False)

    def of_role(self, role: str) -> Self:
        """The policy with the categories that are asked about in messages of this role only."""
        kept = tuple(category for category in self.categories if role in category.roles)
        return self if kept == self.categories else msgspec.structs.replace(self, categories=kept)


def check_distinct(policies: tuple[Policy, ...]) -> None:
    """Raise InvalidPolicy unless there is a policy and all names differ: a request names its policy by name."""
    if not policies:
        raise InvalidPolicy("expected at least one policy, got none; give --policy")
    for name, count in Counter(policy.name for policy in policies).items():
        if count > 1:
            raise InvalidPolicy(f"expected policies of different names, got {name!r} {count} times; rename one")


def _text_fault(policy: Policy) -> tuple[str, str] | None:
    texts = {"$.instructions": policy.instructions}
    for index, category in enumerate(policy.categories):
        for name in ("code", "name", "description", "display_name"):
            texts[f"$.categories[{index}].{name}"] = getattr(category, name)
    for place, text in texts.items():
        control = _CONTROL.search(text)
        if control:
            return place, f"expected text without control characters, got {visible(control[0])} in {quoted(text)}"
    return None


def _roles_fault(policy: Policy) -> tuple[str, str] | None:
    for index, category in enumerate(policy.categories):
        if not set(category.roles) & set(policy.roles) or len(set(category.roles)) < len(category.roles):
            return (
                f"$.categories[{index}].roles",
                f"expected roles among the policy's, {', '.join(policy.roles)}, each once, for category "
                f"{category.code!r}, got {list(category.roles)}",
            )
    for role in policy.roles:
        if not policy.of_role(role).categories:
            return "$.roles", f"expected a category for role {role!r}, got none; leave {role} out of the policy's roles"
    return None


def _band_fault(policy: Policy) -> tuple[str, str] | None:
    """A band in which no score lies does nothing while it seems to: also where both numbers are the same."""
    bands: list[tuple[str, str, Policy | Category]] = [("$.review", "the whole answer", policy)]
    for index, category in enumerate(policy.categories):
        bands.append((f"$.categories[{index}].review", f"category {category.code!r}", category))
    for place, named, one in bands:
        if one.review is not None and one.threshold is not None and one.review >= one.threshold:
            return (
                place,
                f"expected review below the threshold {one.threshold:g} of {named}, got {one.review:g}: from the "
                "threshold on it is flagged, so nothing would be left to review; lower review, or leave it out",
            )
    return None


def _fault(policy: Policy) -> tuple[str, str] | None:
    """Where in the file a well-formed policy is unusable, and why; None where it is not."""
    if not _NAME.fullmatch(policy.name):
        return "$.name", f"policy name {policy.name!r} must be one word of letters, digits, dots, hyphens, underscores"
    if not policy.categories:
        return "$.categories", "expected at least one category, got none"
    if not policy.roles or len(set(policy.roles)) < len(policy.roles):
        return "$.roles", f"expected roles among {', '.join(ROLES)}, each once, got {list(policy.roles)}"
    fault = _text_fault(policy) or _roles_fault(policy) or _band_fault(policy)
    if fault:
        return fault
    counts = Counter(policy.codes)
    for index, category in reversed(list(enumerate(policy.categories))):
        code, place = category.code, f"$.categories[{index}].code"
        if counts[code] > 1:
            return place, f"category code {code!r} stands {counts[code]} times; codes must differ"
        if code == UNSAFE:
            return (
                place,
                f"category code {code!r} is reserved: it stands for P(unsafe) in reports; rename it",
            )
        if not code or code != "".join(code.split()) or "," in code:
            return place, f"category code {code!r} must be one word without white space or comma"
        if not category.name.strip():
            return f"$.categories[{index}].name", f"expected a name for category {code!r}, got an empty string"
    return None
