"""The errors of the core; every message says what was expected, what was got, and the fix.

VerdictreeError
├── InvalidConversation   a request that cannot be classified as it stands
├── NoVerdict             a guard whose answer is no verdict, or no number
├── InvalidPolicy         a policy file that does not describe a taxonomy
├── AmbiguousGrammar      a tokenizer that cannot tell two verdicts apart
├── UnsupportedGuard      a checkpoint, template or family that cannot be exported
├── InvalidRelease        a release that is missing, damaged or inconsistent
├── InvalidAdminKey       a file that holds no key for the control API
└── RepositoryBusy        another operator is at work on the model repository
"""


class VerdictreeError(Exception):
    """Any error that Verdictree raises on purpose."""


class InvalidConversation(VerdictreeError):
    """A request that cannot be classified as it stands."""


class NoVerdict(VerdictreeError):
    """A guard's answer that is no verdict: numbers that are not finite, or words that are none of a verdict's."""


class InvalidPolicy(VerdictreeError):
    """A policy that does not describe a usable taxonomy."""


class AmbiguousGrammar(VerdictreeError):
    """A grammar whose verdicts a tokenizer cannot tell apart."""


class UnsupportedGuard(VerdictreeError):
    """A checkpoint, chat template or family that cannot become a release."""


class InvalidRelease(VerdictreeError):
    """A release that is missing, damaged or inconsistent."""


class InvalidAdminKey(VerdictreeError):
    """A file that holds no key for the control API."""


class RepositoryBusy(VerdictreeError):
    """Another operator is at work on the model repository."""
