"""What is asked: conversations in a stated mix, as request bodies and as token ids."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verdictree.conversation import parse
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import TokenizedConversation

_CONVERSATIONS = Path(__file__).with_name("conversations")
_SAFE_PER_UNSAFE = 19  # 95 to 5
# Distinct conversations must outlast a measurement, or a prefix cache finds whole prompts in it.
_OPENINGS = ("", "Hello. ", "Listen. ", "One question. ", "Please help. ")

MIXES = ("production", "unsafe")


@dataclass(frozen=True)
class Workload:
    """One mix of distinct conversations; `bodies[i]` is the request whose ids are `tokenized[i]`."""

    mix: str
    unsafe: int
    bodies: list[str]
    tokenized: list[TokenizedConversation]

    def statement(self) -> dict[str, Any]:
        """What a reader must know of it."""
        lengths = sorted(conversation.num_tokens for conversation in self.tokenized)
        return {
            "mix": self.mix,
            "conversations": len(self.bodies),
            "unsafe_share": self.unsafe / len(self.bodies),
            "conversation_tokens": {
                "least": lengths[0],
                "median": statistics.median(lengths),
                "mean": statistics.mean(lengths),
                "most": lengths[-1],
            },
        }


def load(mix: str, guard: LocalGuard) -> Workload:
    """The mix "production" (safe conversations, every twentieth an unsafe one) or "unsafe" (all unsafe)."""
    safe, unsafe = (_requests(name) for name in ("safe", "unsafe"))
    bodies, num_unsafe = _opened(unsafe) if mix == "unsafe" else _mixed(safe, unsafe)
    return Workload(mix, num_unsafe, bodies, [guard.tokenize(parse(body.encode())) for body in bodies])


def _mixed(safe: list[str], unsafe: list[str]) -> tuple[list[str], int]:
    bodies: list[str] = []
    chosen = iter(unsafe)
    for start in range(0, len(safe), _SAFE_PER_UNSAFE):
        bodies += [*safe[start : start + _SAFE_PER_UNSAFE], next(chosen)]
    return bodies, len(bodies) - len(safe)


def _opened(unsafe: list[str]) -> tuple[list[str], int]:
    bodies: list[str] = []
    for first_words, body in itertools.product(_OPENINGS, unsafe):
        request = json.loads(body)
        request["messages"][0]["content"] = first_words + request["messages"][0]["content"]
        bodies.append(json.dumps(request))
    return bodies, len(bodies)


def _requests(name: str) -> list[str]:
    """The request bodies that ask about a file's labelled rows."""
    rows = (_CONVERSATIONS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.dumps({"messages": json.loads(row)["conversation"]}) for row in rows]


def write_prompts(guard: LocalGuard, workloads: Mapping[str, Workload], path: Path) -> None:
    """The same conversations as the rivals read them, `benchmarks.programs.answering.Prompts`: whole, in token ids."""
    prompts, tree = guard.release.prompts, guard.release.tree
    mixes = {
        mix: [
            [
                *prompts[conversation.prefix_ids[0]].prefix_ids,
                *conversation.input_ids.tolist(),
                *prompts[conversation.prefix_ids[0]].suffix_ids,
            ]
            for conversation in workload.tokenized
        ]
        for mix, workload in workloads.items()
    }
    path.write_text(json.dumps({"mixes": mixes, "end_tokens": tree.end_tokens, "labels": tree.labels}))
