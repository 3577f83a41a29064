"""Where a checkpoint keeps its chat template, and templates that fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jinja2
import pytest
import tiny_guard

from verdictree.errors import UnsupportedGuard
from verdictree_export import inspection
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.checkpoint import TemplateFailed

pytestmark = pytest.mark.slow

FILE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
OTHER = "{{ messages[-1].content }}"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_guard.write_checkpoint(tmp_path_factory.mktemp("whole") / "checkpoint")


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "checkpoint"))


def configured(copy, template):
    """Move the template into tokenizer_config.json, as it was kept until transformers 4.43."""
    own = (copy / FILE).read_text()
    (copy / FILE).unlink()
    said = json.loads((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps({**said, "chat_template": template(own)}))


def named(**templates):
    return [{"name": name, "template": template} for name, template in templates.items()]


def beside(copy, **templates):
    (copy / "additional_chat_templates").mkdir()
    for name, template in templates.items():
        (copy / "additional_chat_templates" / f"{name}.jinja").write_text(template)


PLACES = {
    "a file": lambda copy: None,
    "tokenizer_config.json": lambda copy: configured(copy, lambda own: own),
    "a list with a default": lambda copy: configured(copy, lambda own: named(tool_use=OTHER, default=own)),
    "a list of one": lambda copy: configured(copy, lambda own: named(moderation=own)),
    "a file, and others beside it": lambda copy: beside(copy, tool_use=OTHER, rag=OTHER),
    "a file, and another in tokenizer_config.json": lambda copy: [
        configured(copy, lambda own: OTHER),
        (copy / FILE).write_text(tiny_guard.tokenizer().chat_template),
    ],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_template_is_found_wherever_it_is_kept(place, folder, copy):
    """From a list of named templates the family was told by the names, and the guard asked in another form."""
    expected = inspection.inspect(str(folder), "auto", [tiny_guard.POLICY])
    PLACES[place](copy)
    seen = inspection.inspect(str(copy), "auto", [tiny_guard.POLICY])
    assert seen.family.name == "llama-guard-3" and seen.prompts == expected.prompts and seen.tree == expected.tree
    guard = checkpoint.load(str(copy))
    assert guard.template == expected.guard.template == guard.tokenizer.chat_template
    checkpoint.save_weightless(guard, copy.parent / "weightless")
    assert checkpoint.load_weightless(str(copy.parent / "weightless")).template == guard.template


def test_several_templates_without_a_default_are_named(copy):
    """Any of them could be the one that moderates."""
    configured(copy, lambda own: named(moderation=own, tool_use=OTHER))
    guard = checkpoint.load_weightless(str(copy))
    for ask in (lambda: guard.template, lambda: guard.render(HELLO)):
        with pytest.raises(UnsupportedGuard, match="named 'default', got 'moderation', 'tool_use'; keep the one"):
            ask()


def test_a_guard_without_a_template_has_none(copy):
    """Families that ask in their own words need none."""
    (copy / FILE).unlink()
    assert checkpoint.load_weightless(str(copy)).template is None


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{% for m in messages %}\n{{ m.content", 2),
        ("{% if messages %}\n\n{% endfor %}", 3),
        ("a\n{{ messages | no_such_filter }}", 2),
        ("{% include %}", 1),
        ("{{ 'open }}", 1),
        ("\n\n{% no_such_tag %}", 3),
    ],
)
def test_a_template_that_is_none_is_named_with_its_line(template, line, copy):
    """ "Choose another family" sends its reader away from the line that is wrong."""
    (copy / FILE).write_text(template)
    guard = checkpoint.load_weightless(str(copy))
    with pytest.raises(UnsupportedGuard, match=f"got one of 'checkpoint' with a fault in line {line}: .*; ") as refused:
        guard.render(HELLO)
    assert not isinstance(refused.value, jinja2.TemplateError), "it would be taken for one that wants other messages"


FAILING = {
    "its own refusal": ("{{ raise_exception('Roles must alternate') }}", "Roles must alternate"),
    "a variable that is not there": ("{{ categories.S1.name }}", "categories"),
    "text and number": ("{{ messages[0].content + 1 }}", "TypeError"),
    "a division": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "what the sandbox forbids": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "a file": ("{% include '/etc/passwd' %}", "loader|passwd"),
    "a format": ("{{ '%d' | format('x') }}", "TypeError"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_both_errors(name, copy):
    """Its author's words must reach the reader; and nobody who does not expect it may see a traceback."""
    template, said = FAILING[name]
    (copy / FILE).write_text(template)
    guard = checkpoint.load_weightless(str(copy))
    with pytest.raises(TemplateFailed, match=said) as failed:
        guard.render(HELLO)
    assert isinstance(failed.value, jinja2.TemplateError) and isinstance(failed.value, UnsupportedGuard)


@pytest.mark.parametrize("family", ["auto", "instruct", "llama-guard-3", "nemotron"])
@pytest.mark.parametrize("template", [*(one for one, _ in FAILING.values()), "{% if %}", "", "{{ messages }}", "x"])
def test_a_command_says_what_is_wrong_with_a_template_in_one_line(template, family, copy, tmp_path):
    """A template is a stranger's program, and fails as programs do."""
    (copy / FILE).write_text(template)
    result = tiny_guard.run_command("inspect", copy, tmp_path, "--family", family)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code:
        assert result.stderr.startswith("Error: ") and len(result.stderr.strip().splitlines()) == 1
