"""The release manifest: what a release is made of, and proof that it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path
from typing import Self

import msgspec

from verdictree.conversation import Role
from verdictree.errors import InvalidConversation, InvalidRelease
from verdictree.families.guard_family import ConversationFormat
from verdictree.policy import Policy
from verdictree.releases import VERSION
from verdictree.releases.early_exit import EarlyExit
from verdictree.releases.prompt import Prompt
from verdictree.releases.proofs import Golden, Parity, QuantizationQuality
from verdictree.text.visible import quoted
from verdictree.verdict_tree.exploration import Exploration
from verdictree.verdict_tree.tree import VerdictTree

MAX_OFF_GRAMMAR = 0.5  # where nobody says otherwise, and in manifests from before they said it
MANIFEST, TOKENIZER_FILE = "release.json", "tokenizer.json"
GRAPH_FILE, WEIGHTS_FILE, POLICIES_FILE = "model.onnx", "weights.bin", "policies.bin"
WEIGHTLESS_FOLDER = "checkpoint"  # the checkpoint's configuration and tokenizer, without weights
TOKENIZER_MODEL, GRAPH_MODEL, MARGINALS_MODEL = "guard_tokenizer", "guard_lm", "guard_marginals"
COMPOSING_MODELS = (TOKENIZER_MODEL, GRAPH_MODEL, MARGINALS_MODEL)
# 1 is that of the manifests from before there was a number; 2 has `format`, `software` and `shares`; 3 has an early
# exit, whose outputs older software would take for a verdict.
FORMAT = 3
FORMAT_WITHOUT_EXIT = 2


class Release(msgspec.Struct, frozen=True, kw_only=True, rename={"quantization_quality": "fidelity"}):
    """One exported guard. The same manifest lies in the release's directory of each composing model.

    `adapter` is the LoRA adapter's folder name with the SHA-256 of its files. A request names one of `policies`; the
    first is the default. `prompts[i]` belongs to prefix id i. `max_tokens` bounds a conversation's own tokens. `files`
    maps the release's other files, relative to the model repository, to their SHA-256. A release from before there
    were golden conversations has none. `quantization_quality` is a quantized release's. A verdict whose `off_grammar`
    is above `max_off_grammar` is undecided, and flagged. `shares` is the release whose tokenizer and graph this one is
    served with, where it differs from that one in its calibration only. `early_exit` is of a graph that has one.
    `format` is the manifest's, `software` the version that wrote it.
    """

    number: int
    created: str
    checkpoint: str
    adapter: str | None
    family: str
    precision: str
    policies: tuple[Policy, ...]
    conversation: ConversationFormat
    prompts: tuple[Prompt, ...]
    max_tokens: int
    tree: VerdictTree
    exploration: Exploration
    parity: Parity
    files: dict[str, str]
    golden: tuple[Golden, ...] = ()
    quantization_quality: QuantizationQuality | None = None
    max_off_grammar: float = MAX_OFF_GRAMMAR
    shares: int | None = None
    early_exit: EarlyExit | None = None
    format: int = 1
    software: str = ""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the manifest in a release's directory.

        Raises InvalidRelease where it is missing, damaged, or of another version of the software that this one cannot
        read.
        """
        path = directory / MANIFEST
        content = _content(path)
        try:
            header = msgspec.json.decode(content, type=_Header)
            if header.format > FORMAT:
                raise InvalidRelease(_foreign(path, header, "install that version, or a later one, to serve it"))
            return msgspec.json.decode(content, type=cls)
        except msgspec.ValidationError as exc:
            if header_of_another_version := _header(content):
                fix = f"serve it with the version that made it, or export the guard again ({exc})"
                raise InvalidRelease(_foreign(path, header_of_another_version, fix)) from exc
            raise InvalidRelease(_damaged(path, exc)) from exc
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
            raise InvalidRelease(_damaged(path, exc)) from exc

    @classmethod
    def load_verified(cls, repository: Path, number: int, models: Container[str] = COMPOSING_MODELS) -> Self:
        """Read release `number` of a model repository and check the files of `models` against their hashes.

        Raises InvalidRelease, naming the file, where one is missing or changed, or the composing models' manifests
        differ.
        """
        directories = [repository / model / str(number) for model in COMPOSING_MODELS]
        releases = [cls.load(directory) for directory in directories]
        for directory, release in zip(directories, releases, strict=True):
            if release != releases[0] or release.number != number:
                raise InvalidRelease(f"'{directory / MANIFEST}' belongs to another release; export the release again")
        for name, expected in releases[0].files.items():
            if Path(name).parts[0] not in models:
                continue
            path = repository / name
            if not path.is_file():
                raise InvalidRelease(f"release {number} lacks its file '{path}'; export the release again")
            if (actual := sha256(path)) != expected:
                got = f"expected SHA-256 {expected[:12]}…, got {actual[:12]}…"
                raise InvalidRelease(f"'{path}' is not the file that was exported ({got}); export the release again")
        return releases[0]

    def version(self, model: str) -> int:
        """The version of a composing model that serves this release."""
        return self.number if self.shares is None or model == MARGINALS_MODEL else self.shares

    def folder(self, repository: Path, model: str) -> Path:
        """Where the files lie that a composing model serves this release with."""
        return repository / model / str(self.version(model))

    @property
    def policy(self) -> Policy:
        """The default policy: that of requests which name none."""
        return self.policies[0]

    def policy_named(self, name: str | None) -> Policy:
        """The policy of this name, the default for None.

        Raises InvalidConversation, naming the known ones, where there is none: no tenant gets another's policy.
        """
        for policy in self.policies:
            if name in (None, policy.name):
                return policy
        known = ", ".join(repr(policy.name) for policy in self.policies)
        raise InvalidConversation(
            f"expected policy {known} or none, got {quoted(name)}; release {self.number} has no other policy"
        )

    def prompt(self, number: int) -> Prompt:
        """The prompt of a number that the graph takes: those beyond all prompts ask for the same, in full."""
        return self.prompts[number % len(self.prompts)]

    @property
    def num_prefix_ids(self) -> int:
        """How many numbers of prompts the graph knows: with an early exit each has one more, for the full pass."""
        return len(self.prompts) * (1 if self.early_exit is None else 2)

    @property
    def num_questions(self) -> int:
        """How many prompts a request is asked with: 1, or as many as the longest policy has categories."""
        return max(len(policy.categories) for policy in self.policies) if self.tree.grammar.per_category else 1

    def prefix_ids(self, policy: Policy, role: Role) -> tuple[int, ...]:
        """The indices of the `num_questions` prompts by which `policy` asks about messages of this role.

        A policy of fewer categories repeats its last prompt: the requests of a batch have one shape.
        Raises InvalidConversation, naming the policy's roles, where it judges no messages of this role.
        """
        own = [i for i, prompt in enumerate(self.prompts) if (prompt.policy, prompt.role) == (policy.name, role)]
        if own:
            return (*own, *own[-1:] * (self.num_questions - len(own)))
        raise InvalidConversation(
            f"expected a last message of role {' or '.join(policy.roles)}, which policy {policy.name!r} judges, "
            f"got {role!r}; choose another policy or end the conversation before that message"
        )

    @property
    def guard_sha256(self) -> str:
        """The hash of all that raw scores depend on: one guard exported alike has it on every machine.

        The checkpoint counts by its name: weights that are retrained in place keep it.
        """
        policies = tuple(policy.as_asked() for policy in self.policies)
        guard = (self.checkpoint, self.adapter, self.family, self.precision, policies, self.prompts)
        return hashlib.sha256(msgspec.json.encode((*guard, self.exploration))).hexdigest()

    def to_json(self) -> bytes:
        """The manifest's file content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class _Header(msgspec.Struct, frozen=True):
    format: int = 1
    software: str = ""


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise InvalidRelease(f"expected a release manifest at '{path}', got none; run `verdictree export`") from exc
    except OSError as exc:
        raise InvalidRelease(f"the release manifest '{path}' cannot be read: {exc.strerror}; look at the disk") from exc


def _header(content: bytes) -> _Header | None:
    """A manifest's header, where another version of the software wrote it."""
    try:
        header = msgspec.json.decode(content, type=_Header)
    except msgspec.ValidationError:
        return None
    return header if header.software != VERSION else None


def _foreign(path: Path, header: _Header, fix: str) -> str:
    made = f"verdictree {header.software}" if header.software else "a version from before manifests named it"
    return (
        f"the release manifest '{path}' was made by {made}, in format {header.format}; this is verdictree {VERSION}, "
        f"which reads formats up to {FORMAT}: {fix}"
    )


def _damaged(path: Path, exc: Exception) -> str:
    return f"the release manifest '{path}' is damaged ({exc}); export the release again"


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
