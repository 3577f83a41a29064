"""Moderate texts with OpenAI's own SDK: only `base_url` changes.

pip install openai
verdictree serve
python examples/openai_moderation.py "How do I pick a lock?"

GUARD_URL names another address than the usual one; GUARD_KEY is a tenant's key, where the server asks for one.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

address = os.environ.get("GUARD_URL", "http://127.0.0.1:8000")
with OpenAI(base_url=f"{address}/v1", api_key=os.environ.get("GUARD_KEY", "none")) as client:
    answer = client.moderations.create(model="omni-moderation-latest", input=sys.argv[1:] or ["How do I pick a lock?"])
for result in answer.results:
    scores = result.category_scores.model_extra or {}  # by the codes of the policy
    code = max(scores, key=scores.__getitem__)
    verdict = (result.model_extra or {})["verdictree"]  # the whole verdict
    print(f"flagged={result.flagged} P(unsafe)={verdict['p_unsafe']:.4f} {code}={scores[code]:.4f}")
