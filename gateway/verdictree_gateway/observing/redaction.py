"""What of a caller's text may be kept: e-mail addresses, numbers of cards and telephones, URLs' queries are replaced.

In doubt more is replaced than must be: a date is a number too. Names, streets and what is spelled out stay.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 4096  # of a text that are kept
_MARGIN = 80  # characters before a cut: half an address or a card's number, which nothing else would show as one
_TOKEN = re.compile(r"\S+")
_QUERY = re.compile(r"[?#].*", re.DOTALL)
# Seven digits and more, of any script, with up to three signs, spaces or marks between two.
_NUMBER = re.compile(r"\+?\d(?:[\W_]{0,3}\d){6,}")


def redacted(text: str) -> str:
    """The beginning of a text, at most `MAX_CHARACTERS`, in compatible form (NFKC), without what identifies people."""
    # What is not seen would split a number.
    plain = "".join(c for c in unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]) if not _is_hidden(c))
    cut = len(text) > MAX_CHARACTERS or len(plain) > MAX_CHARACTERS
    if cut:
        plain = plain[: max(0, min(len(plain), MAX_CHARACTERS) - _MARGIN)]
    kept = _NUMBER.sub("[number]", _TOKEN.sub(_token, re.sub(r"\s+@\s*|@\s+", "@", plain)))
    return f"{kept}…" if cut else kept


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cf", "Cs")


def _token(found: re.Match[str]) -> str:
    token = found[0]
    if "@" in token:
        return "[e-mail]"
    if "://" in token or token.lower().startswith("www."):
        return _QUERY.sub("?[query]", token)
    return token
