"""The gateway over HTTP: other people's shapes in, the one way to a verdict, their shapes out.

application.py      the paths, and what each does
    bodies.py           bounded bodies in, answers and refusals out
    chat_messages.py    OpenAI's conversations, as /v1/classify reads them
    moderations.py      OpenAI's moderations
    litellm.py          LiteLLM's generic guardrail API
    openapi.py          the description of it all
page/               the page for people at /
"""
