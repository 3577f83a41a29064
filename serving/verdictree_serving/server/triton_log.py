"""Finds, in Triton's log, the one line that says why the server ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ERROR_LINE = re.compile(r'^(?:E\d{4} \S+ \d+ [\w.]+:\d+\]|\[libprotobuf ERROR [^\]]*\]) "?(?P<message>.*?)"?\s*$')
_LOG_LINE = re.compile(r"^[IWEF]\d{4} ")
_SUMMARY_LINE = re.compile(r"^error: (?P<message>.*)$")
_HARMLESS = re.compile("CudaDriverHelper|CUDA driver version")  # logged as errors on every machine without a GPU
# Around a Python error the backend puts its own words before and a traceback, its newlines escaped, behind.
_AROUND_PYTHON_ERROR = re.compile(r"^ERROR: Failed to create instance: |\\n.*$")


def first_error(log: str) -> str:
    """The first error in Triton's log, which is the cause; later ones are its consequences."""
    lines = log.splitlines()
    for pattern in (_ERROR_LINE, _SUMMARY_LINE):
        for message in _messages(pattern, lines):
            return message
    if lines and not _LOG_LINE.match(lines[0]):
        return lines[0].strip()  # a complaint about the command line, before anything is logged
    return "its log holds no error"


def _messages(pattern: re.Pattern[str], lines: list[str]) -> Iterator[str]:
    for line in lines:
        match = pattern.match(line)
        if match and not _HARMLESS.search(line):
            yield _AROUND_PYTHON_ERROR.sub("", match["message"]).strip()
