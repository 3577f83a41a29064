"""The errors of the core; every message says what was expected, what was got, and the fix.

VerdictreeError
├── InvalidConversation   a request that cannot be classified as it stands
├── NoVerdict             a guard whose answer is no verdict, or no number
├── InvalidPolicy         a policy file that does not describe a taxonomy
├── AmbiguousGrammar      a tokenizer that cannot tell two verdicts apart
├── UnsupportedGuard      a checkpoint, template or family that cannot be exported
├── InvalidRelease        a release that is missing, damaged or inconsistent
├── GpuUnavailable        a GPU that is asked for, and that ONNX Runtime does not run on
├── ReleaseTaken          a release's number that another release, or its writer, has
├── InvalidAdminKey       a file that holds no key for the control API
├── RepositoryBusy        another operator is at work on the model repository
└── NotWritable           the disk takes nothing: full, read-only or not permitted
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar, Self

from verdictree.text.visible import bounded, visible


class VerdictreeError(Exception):
    """Any error that Verdictree raises on purpose.

    Messages quote what strangers wrote: they are bounded, and what could rearrange a terminal is escaped.
    """

    max_characters: ClassVar[int] = 2000

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(bounded(message, self.max_characters), keep="\n"))


class InvalidConversation(VerdictreeError):
    """A request that cannot be classified as it stands."""

    max_characters = 500  # it travels as gRPC metadata, of which a client takes 8 KiB, with up to 12 bytes for each


class NoVerdict(VerdictreeError):
    """A guard's answer that is no verdict: numbers that are not finite, or words that are none of a verdict's."""


class InvalidPolicy(VerdictreeError):
    """A policy that does not describe a usable taxonomy."""


class AmbiguousGrammar(VerdictreeError):
    """A grammar whose verdicts a tokenizer cannot tell apart."""


class UnsupportedGuard(VerdictreeError):
    """A checkpoint, chat template or family that cannot become a release."""


class GpuUnavailable(VerdictreeError):
    """A GPU that is asked for, and that ONNX Runtime does not run on."""


class InvalidRelease(VerdictreeError):
    """A release that is missing, damaged or inconsistent."""


class ReleaseTaken(VerdictreeError):
    """A release's number that another release, or its writer, has."""


class InvalidAdminKey(VerdictreeError):
    """A file that holds no key for the control API."""


class RepositoryBusy(VerdictreeError):
    """Another operator is at work on the model repository."""


class NotWritable(VerdictreeError):
    """The disk takes nothing: it is full, read-only, or not this user's to write on."""

    @classmethod
    def of(cls, path: Path, exc: OSError) -> Self:
        """The error that a failed write to `path` means."""
        fix = _FIXES.get(exc.errno or 0, "look at the disk and the path")
        return cls(f"expected to write '{path}', got: {exc.strerror or exc}; {fix}")


_FULL = "free some space"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "mount the file system for writing",
    errno.EACCES: "run as the user that owns it, or change its mode",
    errno.EPERM: "run as the user that owns it, or change its mode",
}
