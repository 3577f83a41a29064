"""The page for people, in a real browser on a real server, and with hostile answers from a false one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import devtools
import msgspec
import pytest
import tiny_guard
import uvicorn
from devtools import CONTROL, SHIFT, Tab
from second_gateway import gateway
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from supervised import Served

from verdictree import Category, CategoryScore, GreedyVerdict, Place, Policy, Verdict, Window
from verdictree_gateway.tenants import hashed
from verdictree_gateway.web.page.routes import routes

pytestmark = [pytest.mark.server, browser.needed]
STRICT = Policy(
    name="strict",
    version="2",
    categories=(Category("S1", "One", threshold=0.05), Category("S2", "Two", threshold=0.9, review=0.01)),
    threshold=0.99,
)
TEXT = "How do I open a tin?"
READY = "document.activeElement.matches('textarea') && document.querySelectorAll('#policy option').length > 1"
HOSTILE = (
    "<img src=x onerror=document.documentElement.setAttribute('hostile-code-ran',1)> \u202eevil\u2066 \x1b[31m مرحبا"
)


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A repository with one release of a tiny guard and two policies, one of which flags."""
    from verdictree_export.exporter import export_release

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    tiny_guard.write_checkpoint(checkpoint, seed=0, **tiny_guard.FLUENT)
    repository = tmp_path_factory.mktemp("page") / "models"
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY, STRICT], repository)
    return repository


@pytest.fixture
def tab(tmp_path) -> Iterator[Tab]:
    with devtools.opened(tmp_path / "profile") as found:
        yield found


def home(server: Served) -> str:
    return f"http://{server.said['http']}/"


def judged(tab: Tab, text: str, cards: int = 1) -> None:
    """Type, and judge, with the keyboard alone."""
    tab.type(text)
    tab.press("Enter", CONTROL)
    tab.wait(f"document.querySelectorAll('.card').length === {cards} && !document.querySelector('[aria-busy]')")


def numbers(tab: Tab, card: int = 0) -> dict[str, float]:
    """The raw probabilities in a card's table, by code; P(unsafe) by the empty one."""
    script = f"""Object.fromEntries([...document.querySelectorAll('.card')[{card}].querySelectorAll('tr[data-code]')]
        .map((row) => [row.dataset.code, Number(row.querySelector('.marginal data').value)]))"""
    return tab.run(script)


def of(verdict: Verdict) -> dict[str, float]:
    return {score.code: score.marginal for score in verdict.ranked} | {"": verdict.p_unsafe}


def test_the_page_shows_what_a_client_gets(server, tab):
    """A page that rounds, mixes up or invents numbers misleads whoever tries the guard by it."""
    tab.open(home(server))
    tab.wait(READY)
    judged(tab, TEXT)
    with server.client() as client:
        verdict = client.classify(TEXT)
    shown = numbers(tab)
    assert shown == pytest.approx(of(verdict), abs=1e-12) and list(shown) == list(of(verdict))
    begins = tab.run("[...document.querySelectorAll('.keys')[0].querySelectorAll('data')].map((one) => +one.value)")
    assert begins[:2] == pytest.approx([verdict.p_safe, verdict.p_unsafe], abs=1e-12)
    assert sum(begins) == pytest.approx(1.0)
    followed = tab.run("[...document.querySelectorAll('.keys')[1].querySelectorAll('data')].map((one) => +one.value)")
    assert sum(followed) == pytest.approx(1.0) and followed[0] == pytest.approx(1 - verdict.unexplored)
    assert tab.run("document.querySelector('.greedy').textContent") == verdict.greedy.text
    assert f"P(unsafe) {verdict.p_unsafe:.4f}" in tab.run("document.getElementById('status').textContent")
    assert tab.said == []


def test_nothing_leaves_the_origin(server, tab):
    """A page that loads from elsewhere tells a third party who tries what, and runs what that one likes."""
    tab.open(home(server))
    tab.wait(READY)
    judged(tab, TEXT)
    assert len(tab.requests) > 5 and all(one.startswith(home(server)) for one in tab.requests)
    with urllib.request.urlopen(home(server)) as answer:
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
        page = answer.read().decode()
    assert not re.search(r"\son\w+\s*=|style\s*=|<script>|<style", page)
    assert tab.run("fetch('https://example.org').then(() => 'fetched', () => 'kept in')") == "kept in"


def test_two_policies_side_by_side(server, tab):
    """Verdicts in each other's cards would recommend the wrong policy."""
    tab.open(home(server))
    tab.wait(READY)
    tab.run("document.getElementById('policy').value = 'strict'; document.getElementById('other').value = 'tiny'")
    judged(tab, TEXT, cards=2)
    with server.client() as client:
        verdicts = [client.classify(TEXT, policy=name) for name in ("strict", "tiny")]
    for card, verdict in enumerate(verdicts):
        assert numbers(tab, card) == pytest.approx(of(verdict), abs=1e-12)
    actions = tab.run("[...document.querySelectorAll('.action')].map((one) => one.textContent)")
    assert verdicts[0].action == "block" and actions == ["Block", "No decision"]
    assert "flagged: S1 One" in tab.run("document.querySelector('.flagged').textContent")
    rows = tab.run("[...document.querySelectorAll('.compared tbody tr')].map((row) => row.innerText)")
    assert [row.split("\t")[0] for row in rows][:4] == ["action", "P(unsafe)", "P(safe)", "unexplored"]
    assert any(row.startswith("S10 Ten\t–\t") for row in rows)


def test_a_long_conversation_is_judged_part_by_part(server, tab):
    """Places count characters; a script that counts UTF-16 units marks another text wherever there is an emoji."""
    text = "so 😀 why " * 110
    tab.open(home(server))
    tab.wait(READY)
    tab.run("document.getElementById('truncate').value = 'windows'")
    judged(tab, text)
    with server.client() as client:
        verdict = client.classify(text, truncate="windows")
    assert len(verdict.windows) > 1
    for number, window in enumerate(verdict.windows):
        tab.run(f"document.querySelectorAll('.windows button')[{number}].click()")
        marked = tab.run("document.querySelector('.parts mark').textContent")
        assert marked == text[window.begin.character : window.end.character]


def test_a_refusal_is_said_in_words(server, tab):
    """A page that fails silently looks like a guard that allows."""
    tab.open(home(server))
    tab.wait(READY)
    judged(tab, "why " * 2000)
    fault = tab.run("document.querySelector('.fault').textContent")
    assert fault.startswith("Refused (400): ") and "token" in fault
    assert tab.run("/^request [0-9a-f]{32}$/.test(document.querySelector('.card .small').textContent)")
    assert "Refused" in tab.run("document.getElementById('status').textContent")
    tab.run("document.querySelector('textarea').value = ' '; document.querySelector('textarea').select()")
    tab.press("Enter", CONTROL)
    assert "Write something" in tab.run("document.querySelector('textarea').validationMessage")


def test_turns_by_keyboard(server, tab):
    """Somebody without a mouse must reach every control, and hear which turn it is of."""
    tab.open(home(server))
    tab.wait(READY)
    tab.type("hello")
    for key in ("Tab", "Enter"):
        tab.press(key)
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Text of turn 2"
    tab.type("hi, how are you?")
    assert tab.run("document.querySelectorAll('.role')[1].value") == "assistant"
    judged(tab, " Well?")
    assert "assistant's turn judged" in tab.run("document.querySelector('.facts').textContent")
    tab.press("Tab", SHIFT)
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Remove turn 2"
    tab.press("Enter")
    assert tab.run("document.activeElement.getAttribute('aria-label')") == "Text of turn 1"
    unnamed = """[...document.querySelectorAll('main :is(input, select, textarea, button)')]
        .filter((one) => !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).length"""
    assert tab.run(unnamed) == 0


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (375, "dark"), (1280, "light")])
def test_nothing_is_wider_than_the_screen(server, tab, width, scheme):
    """On a phone a page that scrolls sideways hides half of each number."""
    tab.open(home(server), width=width, scheme=scheme)
    tab.wait(READY)
    tab.run("document.getElementById('other').value = 'strict'")
    judged(tab, "w" * 300, cards=2)
    assert tab.run("document.documentElement.scrollWidth") <= width
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_key_is_asked_for_and_kept_in_memory(server, tab, tmp_path):
    """A key in the browser's storage outlives the visit, and every later script of the origin can read it."""
    key, tenants = "vt-secret", tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": [{"name": "chat", "keys": [hashed(key)], "policies": ["strict"]}]}))
    with gateway(server, "--tenants", str(tenants)) as origin:
        tab.open(f"{origin}/")
        tab.wait("document.getElementById('policies-note').textContent.includes('Refused (401)')")
        judged(tab, TEXT)
        assert tab.run("document.querySelector('.fault').textContent").startswith("Refused (401): ")
        tab.run("document.getElementById('key').focus()")
        tab.type(key)
        tab.press("Enter", CONTROL)
        tab.wait("document.querySelector('.action')?.textContent === 'Block'")
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        assert key not in tab.run(kept) and key not in "".join(tab.requests)
        tab.run("document.getElementById('key').blur()")
        tab.wait("document.querySelectorAll('#policy option').length === 2")


@contextlib.contextmanager
def false_gateway(verdict: Verdict, policies: object, error: str | None = None, scores: object = None) -> Iterator[str]:
    """The page before a gateway that answers what it is told to."""

    async def counted(_request):
        return JSONResponse(scores, 200 if scores else 404)

    async def classify(_request):
        if error is not None:
            return JSONResponse({"error": {"message": error}}, 400, {"x-request-id": "one"})
        return JSONResponse({"verdict": msgspec.to_builtins(verdict), "left_out": [HOSTILE]})

    async def listed(_request):
        return JSONResponse(policies, 200 if policies else 404)

    answers = [Route("/v1/policies", listed), Route("/v1/scores", counted)]
    application = Starlette(routes=[*routes(), Route("/v1/classify", classify, methods=["POST"]), *answers])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server._serve([listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def hostile_verdict(text: str) -> Verdict:
    """Every text in it is hostile, and it has all that a verdict can have."""
    scores = (
        CategoryScore(f"{text}1", text, 0.5, 0.4, 0.4, 0.6, True, 0, "block"),
        CategoryScore("S2", text, 0.25, 0.0, 0.0, None, False, 1, "review"),
    )
    told = {"p_unsafe_calibrated": 0.7, "flagged": True, "unsafe_flagged": True, "calibration": text, "action": "block"}
    windows = (Window(Place(0, 0), Place(0, 9), 0.7), Window(Place(0, 5), Place(0, 2000), 0.6))
    greedy = GreedyVerdict(text, (f"{text}1",), False)
    return Verdict(
        1, text, "user", 0.7, 0.1, scores, 0.2, 0.1, greedy, 3, 0, p_controversial=0.2, windows=windows, **told
    )


def test_hostile_texts_are_inert(tab):
    """What a stranger wrote, or a policy's author, must not run where the analyst's key is, nor rearrange the page."""
    with browser.listener() as (address, asked):
        text = f"{HOSTILE} {browser.hostile(address)}"
        category = {"code": "S2", "name": text, "threshold": 0.5, "review": 0.25}
        policies = {"release": text, "policies": [{"name": text, "version": text, "categories": [category]}]}
        counts = {"edges": [0, 0.5], "positives": [1, 2], "negatives": [2, 1], "threshold": 0.5, "review": None}
        said = {name: text for name in ("release", "policy", "calibration", "unlabelled")}
        scores = {**said, "scores": [{"code": text, "name": text, **counts}]}
        with false_gateway(hostile_verdict(text), policies, scores=scores) as origin:
            tab.open(origin)
            tab.wait(READY)
            judged(tab, text)
            tab.run("document.querySelector('#thresholds > summary').click()")
            tab.wait("document.querySelector('#sliders table')")
            spoken = "[...document.querySelectorAll('#sliders input')].map((one) => one.ariaLabel).join()"
            assert "\\u{202e}evil" in tab.run(spoken) and "\u202e" not in tab.run(spoken)
            body = tab.run("document.body.innerText")
        assert not tab.run(f"document.documentElement.hasAttribute('{browser.RAN}')")
        assert tab.run("document.querySelectorAll('img, iframe, svg, base, meta[http-equiv], body script').length") == 0
        assert "<img src=x" in body and "\\u{202e}evil\\u{2066} \\u{1b}[31m مرحبا" in body
        assert not set("\u202e\u2066\x1b") & set(body)
        assert asked == [] and tab.said == []
        assert all(one.startswith(origin) for one in tab.requests)
    with false_gateway(hostile_verdict("x"), None, error=HOSTILE) as origin:
        tab.open(origin)
        tab.wait("document.getElementById('policy').matches('input')")
        judged(tab, TEXT)
        assert "\\u{202e}evil" in tab.run("document.querySelector('.fault').innerText")
        assert tab.run("document.querySelectorAll('img').length") == 0


def test_thresholds_are_drawn_where_they_are_listed(tab):
    """A line at another place than the threshold makes a flag look like a mistake."""
    category = {"code": "S2", "name": "Two", "threshold": 0.5, "review": 0.25}
    policies = {"release": 1, "policies": [{"name": "p", "version": "1", "categories": [category]}]}
    with false_gateway(hostile_verdict("p"), policies) as origin:
        tab.open(origin)
        tab.wait(READY)
        judged(tab, TEXT)
        lines = "[...document.querySelectorAll('.threshold')].map((one) => [one.className, one.style.left])"
        assert tab.run(lines) == [["threshold is-review", "25%"], ["threshold is-threshold", "50%"]]
