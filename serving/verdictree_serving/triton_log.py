"""Finds, in Triton's log, the one line that says why the server ended."""

import re
from collections.abc import Iterator

_ERROR_LINE = re.compile(r'^E\d{4} \S+ \d+ [\w.]+:\d+\] "(?P<message>.*)"\s*$')
_SUMMARY_LINE = re.compile(r"^(?:\[libprotobuf ERROR [^\]]*\]|error:) (?P<message>.*)$")
_HARMLESS = "CudaDriverHelper"  # logged as an error on every machine without a GPU
# Around a Python error the backend puts its own words before and a traceback, its newlines escaped, behind.
_AROUND_PYTHON_ERROR = re.compile(r"^ERROR: Failed to create instance: |\\n.*$")


def first_error(log: str) -> str:
    """Return the first error in Triton's log, which is the cause; later ones are its consequences."""
    lines = log.splitlines()
    for pattern in (_ERROR_LINE, _SUMMARY_LINE):
        for message in _messages(pattern, lines):
            return message
    return next((line.strip() for line in lines if line.strip()), "it logged nothing")


def _messages(pattern: re.Pattern[str], lines: list[str]) -> Iterator[str]:
    matches = (pattern.match(line) for line in lines)
    return (_AROUND_PYTHON_ERROR.sub("", m["message"]).strip() for m in matches if m and _HARMLESS not in m["message"])
