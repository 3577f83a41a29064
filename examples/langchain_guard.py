"""Put the guard before and after a chat model of LangChain's: `guard | model | guard`.

pip install "verdictree[client]" langchain-core
verdictree serve
python examples/langchain_guard.py "How do I pick a lock?"

GUARD_ADDRESS names another gRPC address than the usual one; GUARD_KEY is a tenant's key, where the server asks for one.
"""

from __future__ import annotations

import os
import sys

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import BaseMessage, HumanMessage, convert_to_openai_messages
from langchain_core.runnables import RunnableLambda

from verdictree_client import GuardClient


class Blocked(Exception):
    """The guard does not let this pass."""


client = GuardClient(os.environ.get("GUARD_ADDRESS", "127.0.0.1:8001"), api_key=os.environ.get("GUARD_KEY"))


def judge(messages: list[BaseMessage] | BaseMessage) -> list[BaseMessage] | BaseMessage:
    """The same messages, or Blocked."""
    turns = convert_to_openai_messages([messages] if isinstance(messages, BaseMessage) else messages)
    # A guard judges what users and assistants say, not the system's prompt.
    verdict = client.classify([turn for turn in turns if turn["role"] in ("user", "assistant")])
    if verdict.flagged or verdict.action == "review":
        raise Blocked(f"{verdict.role}: {verdict.action}, most probably {verdict.ranked[0].name}")
    return messages


guard = RunnableLambda(judge)
model = FakeListChatModel(responses=["I would ask a locksmith."])  # any chat model stands here
with client:
    try:
        answer = (guard | model | guard).invoke([HumanMessage(" ".join(sys.argv[1:]) or "How do I pick a lock?")])
        print(answer.content)
    except Blocked as exc:
        print(f"blocked: {exc}")
