"""Ask the guard as LiteLLM's proxy does, by its generic guardrail API.

pip install litellm
verdictree serve
python examples/litellm_guardrail.py "How do I pick a lock?"

In the proxy's config.yaml the same guardrail is:

    guardrails:
      - guardrail_name: verdictree
        litellm_params:
          guardrail: generic_guardrail_api
          mode: [pre_call, post_call]
          api_base: http://127.0.0.1:8000
          api_key: os.environ/GUARD_KEY          # a tenant's, where the server asks for one
          additional_provider_specific_params:
            policy: embedded                     # none: the release's default
            block_review: true                   # what is for review is blocked too
"""

from __future__ import annotations

import asyncio
import os
import sys

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # prices are not needed here, nor fetched

from litellm.exceptions import GuardrailRaisedException
from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api import GenericGuardrailAPI


async def main(text: str) -> None:
    """Say whether LiteLLM lets a user's text through."""
    guardrail = GenericGuardrailAPI(
        api_base=os.environ.get("GUARD_URL", "http://127.0.0.1:8000"),
        api_key=os.environ.get("GUARD_KEY"),
        guardrail_name="verdictree",
    )
    try:
        await guardrail.apply_guardrail({"texts": [text]}, request_data={}, input_type="request")
        print("NONE")
    except GuardrailRaisedException as exc:
        print(f"BLOCKED: {exc.message}")


asyncio.run(main(" ".join(sys.argv[1:]) or "How do I pick a lock?"))
