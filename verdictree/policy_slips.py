"""What mends a slip in a policy file, by what msgspec says of it."""

from __future__ import annotations

import re

from verdictree.conversation import ROLES

_FIELDS = "a policy has name, version and categories (code, name)"
_CATEGORY = "a category has code, name, description, threshold, review and calibrated"
# The first that matches.
_FIXES = (
    (
        "Expected `str`, got `(int|float|bool|date|datetime|time|bytes)`",
        'put the value in quotes, as in version: "1": YAML takes 1 for a number, NO for false, 2026-01-31 for a date',
    ),
    ("Expected `str`, got `null`", "give it a value, in quotes if that begins with # or is null"),
    (
        "Expected `str`, got `(array|object)`",
        "give it one text; text with [, {, or a colon and a space in it goes in quotes",
    ),
    (
        r"Expected `float` [<>]=|`float\b.*got `(int|float)`",
        "threshold and review are probabilities, from 0 to 1, as 0.5",
    ),
    ("Expected `float", "a number has a decimal point, as in 0.5, and no quotes and no %"),
    ("Expected `bool`", "write true or false, without quotes"),
    (
        r"Expected `array`.*\$\.categories",
        f"begin each category with a hyphen: - {{code: S1, name: Crimes}}; {_CATEGORY}",
    ),
    (r"(enum|`array`).*\$\.roles", f"list who wrote what it judges: roles: [{', '.join(ROLES)}]"),
    (r"Expected `object`.*\$\.categories", "write each category as {code: S1, name: Crimes}"),
    (r"unknown field.*\$\.categories", f"{_CATEGORY}; text with a comma in it goes in quotes"),
    (r"missing required field.*\$\.categories", _CATEGORY),
)


def fix(message: str) -> str:
    """What mends the file of which msgspec says `message`."""
    return next((mended for pattern, mended in _FIXES if re.search(pattern, message)), _FIELDS)
