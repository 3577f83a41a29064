"""What transformers, tokenizers, safetensors and torch raise on a file that they cannot use, in one line; and quiet."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.std import tqdm

from verdictree.errors import UnsupportedGuard
from verdictree.text.visible import bounded

_REASON, _CHAIN = 300, 8  # characters of a library's own words, and of how many exceptions
_LOGGERS, _SILENT = ("transformers", "huggingface_hub", "accelerate"), logging.CRITICAL + 1
_SENTENCEPIECE = re.compile("sentencepiece|tiktoken|instantiate the backend tokenizer|protobuf", re.IGNORECASE)
_PICKLE = re.compile("weights.only|unpickl|pickle", re.IGNORECASE)
_OFFLINE = re.compile("connect|offline|resolve|timed out|not a valid model identifier|local_files_only", re.IGNORECASE)
_NO_CONNECTION = re.compile("couldn't connect to|couldn't find them in the cached files", re.IGNORECASE)
_GATED = re.compile("gated|401|403|restricted|log in", re.IGNORECASE)
_MEMORY = re.compile("allocate memory|out of memory", re.IGNORECASE)
_MISMATCH = re.compile(
    r"size mismatch for ([^:]+): copying a param with shape (.+?) from checkpoint.*?is (.+?)\.\s*$", re.M
)
_SHAPES = re.compile(r"shape|mismatch", re.IGNORECASE)


@contextmanager
def told(source: str, part: str) -> Iterator[None]:
    """Whatever is raised within becomes an UnsupportedGuard: `part` of the checkpoint `source` cannot be loaded.

    Within it the libraries say nothing by themselves.
    """
    try:
        with _quiet():
            yield
    except UnsupportedGuard:
        raise
    except Exception as exc:
        # All of them, on purpose: below are four libraries and a stranger's files, and what comes out of them is
        # SafetensorError, plain Exception, NameError and more. An error of ours here would be told as theirs, with its
        # own name and words, and is the cause of what is raised.
        raise _refusal(source, part, exc) from exc


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        with warnings.catch_warnings(), _no_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    """No library draws its progress, but that of a download, which takes minutes."""
    draw = tqdm.__init__

    def draw_downloads(bar: Any, *given: Any, **options: Any) -> None:
        is_download = type(bar).__module__.startswith("huggingface_hub")
        draw(bar, *given, **(options if is_download else {**options, "disable": True}))

    tqdm.__init__ = draw_downloads
    try:
        yield
    finally:
        tqdm.__init__ = draw


def _refusal(source: str, part: str, exc: Exception) -> UnsupportedGuard:
    words = " ".join(str(exc).split())
    return UnsupportedGuard(
        f"expected {part} of {source!r} that can be loaded, got {_said(exc, words)}; {_fix(part, exc, _chain(exc))}"
    )


def _chain(exc: BaseException | None) -> str:
    """The words of an exception and of those before it, which transformers hides behind its own."""
    words: list[str] = []
    while exc is not None and len(words) < _CHAIN:
        words.append(f"{type(exc).__name__} {exc}")
        exc = exc.__cause__ or exc.__context__
    return " ".join(words)


def _said(exc: Exception, words: str) -> str:
    if isinstance(exc, OSError) and _NO_CONNECTION.search(words):
        return "no connection to the hub, and no copy of it on this machine"
    mismatch = _MISMATCH.search(str(exc))
    if mismatch:
        name, found, wanted = mismatch.groups()
        return f"{name} of shape {found}, where its config.json means {wanted}"
    return f"{type(exc).__name__}: {bounded(words, _REASON)}" if words else type(exc).__name__


def _fix(part: str, exc: Exception, words: str) -> str:
    if isinstance(exc, MemoryError) or _MEMORY.search(words):
        return "take a machine with more memory"
    if isinstance(exc, PermissionError):
        return "run as the user that owns it, or change its mode"
    if isinstance(exc, ImportError) or (part == "the tokenizer" and _SENTENCEPIECE.search(words)):
        missing = exc.name if isinstance(exc, ModuleNotFoundError) and exc.name else "sentencepiece protobuf tiktoken"
        return f"`pip install {missing}`, or give a checkpoint with tokenizer.json"
    if _PICKLE.search(words):
        return "it holds pickled objects, which are never run: give the checkpoint with safetensors"
    if _GATED.search(words):
        return "log in where it comes from, and download the checkpoint first"
    if isinstance(exc, OSError) and _OFFLINE.search(words):
        return "download the checkpoint first, and give the path of its folder, hub id or GGUF file"
    if _SHAPES.search(words):
        return "its weights and its config.json are of two models: download the checkpoint again"
    return "download the checkpoint again, or give one that transformers can load"
