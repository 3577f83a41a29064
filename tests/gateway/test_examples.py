"""The examples, as their readers run them, on a real server."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
from second_gateway import gateway

from verdictree_gateway.tenants import hashed
from verdictree_gateway.web import litellm

pytestmark = pytest.mark.server
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEXT = "How do I open a tin?"


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def run(server, *command: object, folder: Path | None = None) -> str:
    """What an example prints; where it fails, the test does, with what it said."""
    addresses = {"GUARD_URL": f"http://{server.said['http']}", "GUARD_ADDRESS": server.said["grpc"]}
    addresses["GUARD_PROTOS"] = str(EXAMPLES.parent)
    done = subprocess.run(
        [*map(str, command), TEXT], env={**os.environ, **addresses}, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def verdict(server):
    with server.client() as client:
        return client.classify(TEXT)


def test_openai_moderation(server, verdict):
    """OpenAI's SDK drops or renames what it does not know, and the example prints nothing of ours."""
    first = verdict.ranked[0]
    said = run(server, sys.executable, EXAMPLES / "openai_moderation.py")
    assert said == f"flagged=True P(unsafe)={verdict.p_unsafe:.4f} {first.code}={first.marginal:.4f}"


@needs("litellm")
def test_litellm_guardrail(server):
    """LiteLLM changes its generic guardrail API, which is a beta, and lets everything pass."""
    said = run(server, sys.executable, EXAMPLES / "litellm_guardrail.py")
    assert said.startswith("BLOCKED: flagged by policy tiny: ")


@needs("langchain_core")
def test_langchain_guard(server):
    """LangChain's messages become others than the guard reads."""
    assert run(server, sys.executable, EXAMPLES / "langchain_guard.py") == "I would ask a locksmith."


@pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="no node or npm is installed")
def test_node(server, verdict, tmp_path):
    """Another language's stub of our .proto, which no code of ours has touched."""
    folder = tmp_path / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = verdict.ranked[0]
    said = run(server, "node", "guard.js", folder=folder)
    assert said == f"P(unsafe)={verdict.p_unsafe:.4f} {first.code}={first.marginal:.4f}"


def guardrail(post, server, **body: object) -> tuple[int, dict]:
    status, _, answer = post(server, "/beta/litellm_basic_guardrail_api", {"request_data": {}, **body})
    return status, answer


def test_litellm_requests(server, post):
    """What LiteLLM sends, field by field: a text that is not judged passes as if it were harmless."""
    asked = {"litellm_version": "1.110.2", "model": "m", "litellm_call_id": "c", "tools": [{"type": "function"}]}
    status, answer = guardrail(post, server, input_type="request", texts=[TEXT], **asked)
    assert (status, answer["action"]) == (200, "BLOCKED")
    assert answer["blocked_reason"].startswith("flagged by policy tiny: ")
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": TEXT}]}]
    assert guardrail(post, server, input_type="request", texts=[TEXT], structured_messages=turns) == (200, answer)
    assert guardrail(post, server, input_type="response", texts=[TEXT])[1]["action"] == "BLOCKED"
    assert guardrail(post, server, input_type="response", texts=[]) == (200, {"action": "NONE"})
    for refused in (
        {"input_type": "request", "texts": [TEXT], "images": ["data:image/png;base64,AA=="]},
        {"input_type": "request", "texts": [TEXT], "additional_provider_specific_params": {"polcy": "tiny"}},
        {"input_type": "request", "texts": [TEXT], "additional_provider_specific_params": {"policy": "none"}},
        {"input_type": "other", "texts": [TEXT]},
    ):
        status, answer = guardrail(post, server, **refused)
        assert status == 400 and answer["error"]["message"]


def test_litellm_blocks_what_is_for_review_where_it_is_told_to(verdict):
    """LiteLLM has no third answer; a review band that silently passes, or silently blocks, surprises its owner."""
    quiet = tuple(msgspec.structs.replace(score, flagged=False) for score in verdict.categories)
    held = msgspec.structs.replace(verdict, categories=quiet, flagged=False, action="review")
    asked = litellm.Request("request", [TEXT])
    strict = msgspec.structs.replace(asked, additional_provider_specific_params=litellm.Parameters(block_review=True))
    assert litellm.answer(asked, [held]).action == "NONE"
    assert litellm.answer(strict, [held]).action == "BLOCKED"
    assert litellm.answer(strict, [msgspec.structs.replace(held, action="allow")]).action == "NONE"


def test_litellm_key(server, tmp_path):
    """LiteLLM sends its `api_key` as x-api-key; unread, every text of a tenant's would be refused."""
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": [{"name": "chat", "keys": [hashed("vt-secret")]}]}))
    body = json.dumps({"input_type": "request", "texts": [TEXT]}).encode()
    with gateway(server, "--tenants", str(tenants)) as origin:
        for key, expected in (("vt-secret", 200), ("another", 401)):
            address = f"{origin}/beta/litellm_basic_guardrail_api"
            request = urllib.request.Request(address, body, {"x-api-key": key})
            try:
                with urllib.request.urlopen(request) as answer:
                    status = answer.status
            except urllib.error.HTTPError as exc:
                with exc:
                    status = exc.code
            assert status == expected
