"""A guard small enough to export in seconds: random weights, its own tokenizer, a moderation chat template."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml
from click.testing import CliRunner, Result
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from verdictree.policy import Category, Policy
from verdictree.releases import calibration as calibrations
from verdictree.releases.calibration import Calibration, Outcome
from verdictree.releases.release import MANIFEST, MARGINALS_MODEL, Release, sha256
from verdictree_cli import main

POLICY = Policy(
    name="tiny",
    version="1",
    categories=tuple(Category(code, name) for code, name in [("S1", "One"), ("S2", "Two"), ("S10", "Ten")]),
)
_SPECIAL = ["<|begin|>", "<|header|>", "<|/header|>", "<|eot|>"]
# Numbers of up to three digits and runs of line breaks are words of their own, as in Llama 3.
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Shaped like a Llama Guard 3 template: the whole moderation prompt, and an answer that begins with an empty line.
_TEMPLATE = (
    "{#- its own categories would be S1 to S13 -#}"
    "{%- set speaker = 'User' if messages[-1].role == 'user' else 'Agent' -%}"
    "<|begin|><|header|>user<|/header|>\n\nCheck the {{ speaker }} messages below.\n\n<BEGIN CATEGORIES>\n"
    "{% for code in categories %}{{ code }}: {{ categories[code] }}\n{% endfor %}<END CATEGORIES>\n\n"
    "<BEGIN CONVERSATION>\n\n{% for message in messages %}"
    "{{ 'User' if message.role == 'user' else 'Agent' }}: {{ message.content | trim }}\n\n{% endfor %}"
    "<END CONVERSATION>\n\nAssess the last {{ speaker }} message.<|eot|><|header|>assistant<|/header|>"
)
# Shaped like Granite Guardian's: one question about one category.
QUESTION_TEMPLATE = (
    "<|begin|>{% for m in messages %}{{ 'User Message: ' if m.role == 'user' else 'Assistant Message: ' }}"
    "{{ m.content | trim }}{{ '\n\n' if m.role == 'user' }}{% endfor %} Is it {{ guardian_config['risk_name'] }}?"
    "<|eot|><|header|>assistant<|/header|>"
)
# The sizes of every tiny model, whatever its architecture.
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
# What `write_checkpoint` makes a guard of that answers verdicts and next to nothing else.
FLUENT: dict[str, Any] = {"verdict_strength": 3.0, "hidden_size": 128, "initializer_range": 0.05}


def tokenizer(template: str = _TEMPLATE, vocab_size: int = 420, corpus: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Llama 3's word borders, trained on a few sentences and `corpus`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    text = "safe unsafe\nS1,S2,S10\n\nUser: hello Agent: Check the messages below. categories conversation assess last"
    bpe.train_from_iterator([text] * 8 + ["unsafe\nS10,S1", "\n\nsafe", "\n\nunsafe\nS2"] * 8 + [*corpus], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|eot|>", bos_token="<|begin|>")
    fast.chat_template = template or None
    return fast


def write_checkpoint(
    directory: Path,
    config: Any = LlamaConfig,
    template: str = _TEMPLATE,
    *,
    seed: int = 0,
    vocab_size: int = 420,
    corpus: Sequence[str] = (),
    verdict_strength: float = 0.0,
    **options: Any,
) -> Path:
    """Write the guard as a Hugging Face checkpoint folder; another seed is another guard.

    `config` is its architecture's, `options` what differs; its tokenizer merges what `corpus` repeats. A guard of
    random weights hardly ever answers a verdict. With a `verdict_strength` (2 is strong) it often does: its head
    favours, after each token of a verdict, the tokens that may follow; its random part still decides between those.
    That of `FLUENT` always does.
    """
    fast = tokenizer(template, vocab_size, corpus)
    torch.manual_seed(seed)
    tokens = {"eos_token_id": fast.eos_token_id, "bos_token_id": fast.bos_token_id, "pad_token_id": fast.eos_token_id}
    settings = {**SIZES, **tokens, "tie_word_embeddings": False, **options}
    model = AutoModelForCausalLM.from_config(config(vocab_size=len(fast), **settings))
    if verdict_strength:
        _favour_verdicts(model, fast, verdict_strength)
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def run_command(command: str, checkpoint: Path, folder: Path, *options: str) -> Result:
    """Run `verdictree inspect` or `export` on a checkpoint by `POLICY`, which is written into `folder`."""
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(msgspec.to_builtins(POLICY)))
    return CliRunner().invoke(main, [command, str(checkpoint), "--policy", str(policy), *options])


def calibrate(models: Path, policy: str, outcomes: Sequence[Outcome]) -> Path:
    """Give release 1 of a repository a calibration of one policy, `outcomes` for P(unsafe) and for each category."""
    release, directory = Release.load_verified(models, 1), models / MARGINALS_MODEL / "1"
    fitted = Calibration(
        version="1.1",
        created="",
        release=1,
        policy=policy,
        manifest_sha256=sha256(directory / MANIFEST),
        guard_sha256=release.guard_sha256,
        data={},
        unlabelled="masked",
        unsafe=outcomes[0],
        categories=tuple(outcomes[1:]),
    )
    return calibrations.save({policy: fitted}, directory)


def _favour_verdicts(model: Any, fast: PreTrainedTokenizerFast, strength: float) -> None:
    embedding, head = model.model.embed_tokens.weight.data, model.lm_head.weight.data
    head *= 0.3
    for layer in model.model.layers:  # the last token outweighs what is added to it, so the head knows where it is
        layer.self_attn.o_proj.weight.data *= 0.1
        layer.mlp.down_proj.weight.data *= 0.1
    answers = ["safe", *(f"unsafe\n{labels}" for labels in ("S1", "S2", "S10", "S1,S2", "S2,S10", "S10,S1"))]
    followers = set()
    for answer in answers:
        ids = fast.encode(f"<|/header|>\n\n{answer}<|eot|>", add_special_tokens=False)
        followers |= set(pairwise(ids))
    for token, follower in followers:
        head[follower] += strength * embedding[token] / embedding[token].norm()
