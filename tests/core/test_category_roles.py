"""Categories of one role, shown names, and what a policy may keep of a guard's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from verdictree import families
from verdictree.conversation import Message
from verdictree.errors import InvalidConversation, InvalidPolicy
from verdictree.policy import Category, Policy
from verdictree.probes import Reach

HEAD = 'name: p\nversion: "1"\n'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("categories:\n- {code: A, name: a, roles: []}", 4, "expected roles among the policy's, user, assistant"),
        ("categories:\n- {code: A, name: a, roles: [user, user]}", 4, "each once, for category 'A'"),
        ("roles: [assistant]\ncategories:\n- {code: A, name: a, roles: [user]}", 5, "got ['user']"),
        ("categories:\n- {code: A, name: a, roles: [user]}", 1, "expected a category for role 'assistant', got none"),
    ],
)
def test_roles_that_cannot_be_are_named(tmp_path, text, line, said):
    """A category that nobody is ever asked about would look like one that is never violated."""
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(InvalidPolicy) as error:
        Policy.read(path)
    assert f"{path}:" in str(error.value) and said in str(error.value)


def test_a_policy_of_one_role():
    """Qwen3Guard has Jailbreak in the prompt about a user's message only."""
    policy = Policy.read(Path("qwen3guard"))
    assert "jailbreak" in policy.of_role("user").codes and "jailbreak" not in policy.of_role("assistant").codes
    assert policy.of_role("user") is policy


def test_shown_names_exemplars_and_bands_do_not_change_what_is_asked():
    """A calibration that was fitted before a category was renamed for display, or got a review band, still fits."""
    plain = Policy("p", "1", (Category("A", "a"),))
    category = Category("A", "a", display_name="Alpha", exemplars=("x",), review=0.3)
    dressed = Policy("p", "1", (category,), threshold=0.5, review=0.2)
    assert dressed.as_asked() == plain and dressed.categories[0].shown == "Alpha" and plain.categories[0].shown == "a"


@pytest.mark.parametrize("name", ["wildguard", "polyguard", "granite-guardian", "shieldgemma"])
def test_guards_that_read_the_last_messages(name):
    """Several turns for a format with no place for them: what is not read is left out, never glued to the rest."""
    form = families.family(name).conversation
    user, assistant, other = Message("user", "first"), Message("assistant", "answer"), Message("user", "second")
    assert form.render([user, assistant, other]) == form.render([other])
    assert form.render([other, user, assistant]) == form.render([user, assistant])
    for lone in ([assistant], [user, assistant, assistant]):
        with pytest.raises(InvalidConversation, match="ends with messages of roles user, assistant"):
            form.render(lone)


@pytest.mark.parametrize(
    ("harmless", "exemplars", "warning"),
    [
        ((0.0, 0.01), (0.5, 0.6), ""),
        ((0.0, 0.0), (0.0, 0.0, 0.5), ""),
        ((0.0, 0.0), (0.0, 0.0), "hardly tells"),
        ((0.2, 0.3), (0.1, 0.05), "hardly tells"),
        ((0.0, 0.0), (), ""),
    ],
)
def test_exemplars_tell_whether_a_category_is_known(harmless, exemplars, warning):
    """A warning about every category is read by nobody; none about an unknown one is worse."""
    reach = Reach("A", "a", 0.0, 0.9, harmless, exemplars)
    assert reach.warning.startswith(warning) and bool(reach.warning) == bool(warning)
    assert Reach("A", "a", 0.1, 0.105, harmless, exemplars).warning == "never moves"
