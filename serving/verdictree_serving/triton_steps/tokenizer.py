"""Triton step `guard_tokenizer`: request JSON in, token ids out."""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import wire
from verdictree.conversation import parse
from verdictree.errors import InvalidConversation
from verdictree.releases.release import Release
from verdictree.runtime.tokenization import ConversationTokenizer
from verdictree_serving.gate import NOT_TAKING, Gate
from verdictree_serving.triton_steps.errors import error, send
from verdictree_serving.triton_steps.refusals import Refusals

_LONG_BYTES = 16 << 10
_MAX_LONG_WAITING = 64


class TokenizerStep:
    """One instance; Triton calls the methods by name.

    Short requests are answered at once, one after another. Long ones go to a thread of their own, so that nobody waits
    behind them (the tokenizer computes without holding Python's lock), and refusals are sent by `Refusals`.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load this release's tokenizer."""
        directory = Path(args["model_repository"]) / args["model_version"]
        self._tokenize = ConversationTokenizer.load(Release.load(directory), directory)
        self._gate = Gate.of_environment()
        self._refusals = Refusals()
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long")
        self._free = threading.Semaphore(_MAX_LONG_WAITING)

    def execute(self, requests: list[Any]) -> None:
        """Answer each request by itself: a bad one gets its own error and fails no other."""
        closed = self._gate.reason()
        for request in requests:
            sender = request.get_response_sender()
            if closed is not None:
                send(sender, error(f"{NOT_TAKING}: {closed}", "UNAVAILABLE"))
            else:
                self._take(sender, pb_utils.get_input_tensor_by_name(request, wire.REQUEST).as_numpy())

    def finalize(self) -> None:
        """Answer what was taken."""
        self._long.shutdown()
        self._refusals.close()

    def _take(self, sender: Any, bodies: Any) -> None:
        if bodies.size != 1 or len(bodies.item()) <= _LONG_BYTES:
            self._answer(sender, bodies)
        elif self._free.acquire(blocking=False):
            self._long.submit(self._answer_long, sender, bodies)
        else:
            message = f"Exceeds maximum queue size: {_MAX_LONG_WAITING} long conversations wait"
            send(sender, error(message, "UNAVAILABLE"))

    def _answer_long(self, sender: Any, bodies: Any) -> None:
        try:
            self._answer(sender, bodies)
        finally:
            self._free.release()

    def _answer(self, sender: Any, bodies: Any) -> None:
        start = time.perf_counter()
        try:
            response = self._response(bodies)
        except InvalidConversation as exc:
            refusal = error(str(exc), "INVALID_ARG")
            seconds, num_bytes = time.perf_counter() - start, sum(map(len, bodies.ravel()))
            self._refusals.offer(lambda: send(sender, refusal), seconds, num_bytes)
        except Exception:  # a request without a response would wait for ever
            pb_utils.Logger.log_error(traceback.format_exc())
            send(sender, error("the request could not be encoded; the server's log says why"))
        else:
            send(sender, response)

    def _response(self, bodies: Any) -> Any:
        if bodies.shape != (1, 1):
            raise InvalidConversation(
                f"expected one conversation, shape [1, 1], got {list(bodies.shape)}; send one request each"
            )
        tokenized = self._tokenize(parse(bodies.item()))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", tokenized.input_ids[np.newaxis]),
                pb_utils.Tensor("prefix_id", np.array([tokenized.prefix_ids], dtype=np.int32)),
                pb_utils.Tensor("token_counts", np.array([tokenized.token_counts], dtype=np.int32)),
            ]
        )
