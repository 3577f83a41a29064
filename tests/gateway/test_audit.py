"""The audit log: what it keeps, what it must not, and what becomes of it when the disk is full."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from verdicts import caller, verdict

from verdictree import Conversation, Message
from verdictree_cli import main
from verdictree_gateway.observing.audit import Audit, LinesFile
from verdictree_gateway.observing.redaction import MAX_CHARACTERS, redacted
from verdictree_gateway.observing.watch import Watch
from verdictree_gateway.settings import Settings

HOSTILE = 'x"}\n{"action":"allow"}\r\u2028\u2029\x00\x1b[2J\ud800\u202e\\'
EMAIL = re.compile(r"[^\s@]@[^\s@]")


def said(text: str) -> Conversation:
    return Conversation((Message("user", "before"), Message("user", text)))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def audit(tmp_path):
    def make(**options) -> tuple[Audit, Path, Counter]:
        counted: Counter = Counter()
        settings = Settings(triton=(), audit_file=str(tmp_path / "audit.jsonl"), **options)
        return Audit(settings, "3", lambda outcome: counted.update([outcome])), tmp_path / "audit.3.jsonl", counted

    return make


def test_a_line_says_who_was_told_what(audit):
    """A record from which no decision can be explained."""
    log, path, counted = audit()
    log.verdict(caller(), said("hello"), verdict(0.7, 0.6, 0.1, action="block", flagged=True))
    (line,) = lines(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert len(line.pop("text_hmac")) == 64
    assert line == {
        "request_id": "r-1",
        "tenant": "everybody",
        "port": "http",
        "release": 1,
        "policy": "tiny",
        "role": "user",
        "action": "block",
        "flagged": True,
        "undecided": False,
        "scores": {
            "unsafe": {"raw": 0.7},
            "S1": {"raw": 0.6, "calibrated": 0.6},
            "S2": {"raw": 0.1, "calibrated": 0.1},
        },
    }
    assert counted == {"written": 1} and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_equal_messages_are_seen_and_cannot_be_guessed(audit):
    """A plain hash of "hello" is in every table of hashes."""
    first, path, _ = audit()
    for text in ("hello", "hello", "other"):
        first.verdict(caller(), said(text), verdict())
    first.close()
    audit()[0].verdict(caller(), said("hello"), verdict())
    one, same, other, next_start = (line["text_hmac"] for line in lines(path))
    assert one == same and len({one, other, next_start}) == 3


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("text", [HOSTILE, "\n" * 50, "", "🙂" * 5000])
def test_a_hostile_text_is_one_line(audit, text, texts):
    """A text that writes a line of its own: a verdict that was never given."""
    log, path, _ = audit(audit_texts=texts)
    log.verdict(caller(request_id='"}{'), said(text), verdict())
    assert len(path.read_text(encoding="ascii").splitlines()) == len(lines(path)) == 1


@given(st.text())
def test_any_text_is_one_ascii_line(tmp_path_factory, text):
    """The same, of texts that nobody has thought of."""
    path = tmp_path_factory.mktemp("audit") / "a.jsonl"
    settings = Settings(triton=(), audit_file=str(path), audit_texts=True)
    Audit(settings, "0", lambda outcome: None).verdict(caller(), said(text), verdict())
    assert len(path.with_name("a.0.jsonl").read_text(encoding="ascii").splitlines()) == 1


GAPS = st.sampled_from(["", " ", "-", ".", " - ", "\u200b", "\u00ad", "\u0336", "\ufe0f\u20e3", "\n"])
DIGITS = st.sampled_from(["0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩"])
AROUND = st.text(max_size=60)


@given(AROUND, st.emails(), AROUND, st.sampled_from(["@", "＠", "@\u200b", " @ "]))
def test_no_address_is_kept(before, address, after, at):
    """An address in a file that an operator passes on."""
    kept = redacted(f"{before} {address.replace('@', at)} {after}")
    assert not EMAIL.search(kept) and address not in kept


@given(AROUND, st.text("0123456789", min_size=13, max_size=19), GAPS, DIGITS, AROUND)
def test_no_card_number_is_kept(before, number, gap, digits, after):
    """However its digits are written, and whatever stands between groups of them."""
    written = "".join(digits[int(d)] + (gap if i % 4 == 3 else "") for i, d in enumerate(number))
    kept = redacted(f"{before} {written} {after}")
    assert not re.search(r"\d(?:[^\w]{0,3}\d){6}", kept) and number not in re.sub(r"\W", "", kept)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("call +49 (0)30 1234-5678 now", "call [number] now"),
        ("my id is 000123456789.", "my id is [number]."),
        ("see https://x.org/a?token=secret#me and go", "see https://x.org/a?[query] and go"),
        ("WWW.x.org/?q=name", "WWW.x.org/?[query]"),
        ("a.b@c.de,x@y.z", "[e-mail]"),
        ("why? 12 of 100 people, in 2024", "why? 12 of 100 people, in 2024"),
    ],
)
def test_what_is_replaced_and_what_is_not(text, kept):
    """A record that is all blanks is of no use either."""
    assert redacted(text) == kept == redacted(kept)


@pytest.mark.parametrize("secret", ["john.smith@example.com", "4111 1111 1111 1111"])
def test_a_cut_does_not_show_half_an_address(secret):
    """Cut within, neither half is known for what it is."""
    for place in range(MAX_CHARACTERS - 30, MAX_CHARACTERS + 1):
        kept = redacted("x " * (place // 2) + secret + " y" * 100)
        assert "john" not in kept and "4111" not in kept and len(kept) <= MAX_CHARACTERS


def test_what_grows_by_its_form_is_cut_too():
    """One sign that stands for eighteen: a line of a megabyte."""
    assert len(redacted("ﷺ" * MAX_CHARACTERS)) <= MAX_CHARACTERS


@pytest.mark.parametrize("text", ["@" * 500_000, "1 " * 250_000, "x" * 500_000, "://?" * 125_000, "ﷺ" * 250_000])
def test_redaction_takes_no_time(text):
    """A text on which an expression tries everything, and every other request waits."""
    begin = time.perf_counter()
    redacted(text)
    assert time.perf_counter() - begin < 0.25


def test_files_are_put_aside_and_bounded(tmp_path):
    """A disk that is full some night; and a rotation that loses a line."""
    path = tmp_path / "a.jsonl"
    file = LinesFile(path, max_bytes=100, num_old=2)
    for number in range(100):
        file.append(b'{"number": %03d}' % number)
    file.close()
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["a.jsonl", "a.jsonl.1", "a.jsonl.2"]
    kept = [line for name in reversed(names) for line in (tmp_path / name).read_bytes().splitlines()]
    assert kept == [b'{"number": %03d}' % number for number in range(100 - len(kept), 100)]
    assert all(one.stat().st_size <= 100 and stat.S_IMODE(one.stat().st_mode) == 0o600 for one in tmp_path.iterdir())


def test_a_start_appends(tmp_path):
    """A restart that wipes the record of why it was needed."""
    for number in range(2):
        file = LinesFile(tmp_path / "a.jsonl")
        file.append(b"%d" % number)
        file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"0\n1\n"


def test_a_full_disk_costs_lines_only(tmp_path):
    """The kernel writes half a line, then none: the caller still has a verdict, and the file whole lines."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from verdicts import caller, verdict
from test_audit import said
from verdictree_gateway.observing.watch import Watch
from verdictree_gateway.settings import Settings
watch = Watch(Settings(triton=(), audit_file={str(tmp_path / "a.jsonl")!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(9):
    if number == 7:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    watch.answered(caller(request_id=str(number)), said("hello"), verdict(), 0.1)
print(watch.text().decode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept = [line["request_id"] for line in lines(tmp_path / "a.0.jsonl")]
    assert kept[-2:] == ["7", "8"] and kept[:-2] == [str(number) for number in range(len(kept) - 2)]
    assert 3 <= len(kept) < 7 and f'verdictree_audit_lines_total{{outcome="written"}} {len(kept)}.0' in done.stdout
    assert f'verdictree_audit_lines_total{{outcome="lost"}} {9 - len(kept)}.0' in done.stdout
    assert 'verdictree_requests_total{outcome="ok",port="http"} 9.0' in done.stdout


def test_a_folder_that_is_gone_costs_lines_only(tmp_path):
    """A missing mount that refuses everybody."""
    watch = Watch(Settings(triton=(), audit_file=str(tmp_path / "gone" / "a.jsonl")))
    watch.answered(caller(), said("hello"), verdict(), 0.1)
    assert 'verdictree_audit_lines_total{outcome="lost"} 1.0' in watch.text().decode()
    (tmp_path / "gone").mkdir()
    watch.answered(caller(), said("hello"), verdict(), 0.1)
    assert 'verdictree_audit_lines_total{outcome="written"} 1.0' in watch.text().decode()


def test_a_link_is_not_followed(tmp_path):
    """A link in a folder that others may write: the log would go to a file of theirs."""
    (tmp_path / "a.0.jsonl").symlink_to(tmp_path / "theirs")
    watch = Watch(Settings(triton=(), audit_file=str(tmp_path / "a.jsonl")))
    watch.answered(caller(), said("hello"), verdict(), 0.1)
    assert not (tmp_path / "theirs").exists()


def test_two_gateways_do_not_share_a_file(tmp_path):
    """One renames what the other writes to, or cuts off a line of its neighbour's."""
    first, second = (Watch(Settings(triton=(), audit_file=str(tmp_path / "a.jsonl"))) for _ in range(2))
    for watch in (first, second):
        watch.answered(caller(), said("hello"), verdict(), 0.1)
    assert 'outcome="written"} 1.0' in first.text().decode() and 'outcome="lost"} 1.0' in second.text().decode()
    assert len(lines(tmp_path / "a.0.jsonl")) == 1


def test_a_share_is_drawn(audit):
    """All lines or none, whatever share was asked for."""
    log, path, counted = audit(audit_sample=0.2)
    for _ in range(2000):
        log.verdict(caller(), said("hello"), verdict())
    assert 250 < counted["written"] == len(lines(path)) < 550


@pytest.mark.parametrize(
    ("options", "said_of"),
    [
        (["--audit-texts"], "--audit-file"),
        (["--audit-sample", "0.5"], "--audit-file"),
        (["--audit-file", "/nowhere/audit.jsonl"], "'/nowhere'"),
        (["--audit-file", "audit.jsonl", "--audit-sample", "2"], "0<=x<=1"),
        (["--otlp", "localhost:4317"], "http://localhost:4318"),
    ],
)
def test_options_that_would_record_nothing_are_refused(options, said_of):
    """An audit that everybody believes in, and that never began."""
    done = CliRunner().invoke(main, ["gateway", "--triton", "127.0.0.1:1", *options])
    assert done.exit_code == 2 and said_of in done.output
