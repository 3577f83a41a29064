"""Triton step `guard_tokenizer`: request JSON in, token ids out."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from verdictree import wire
from verdictree.conversation import parse
from verdictree.errors import InvalidConversation
from verdictree.releases.release import Release
from verdictree.runtime.tokenization import ConversationTokenizer
from verdictree_serving.gate import Gate
from verdictree_serving.triton_metrics import StepMetrics
from verdictree_serving.triton_steps.errors import error, send
from verdictree_serving.triton_steps.refusals import Refusals
from verdictree_serving.waiting_line import Limits, WaitingLine

_LONG_BYTES = 16 << 10
Asked = tuple[Any, Any, float]  # where the response goes, the bodies, and when they came


class TokenizerStep:
    """One instance; Triton calls the methods by name.

    Requests wait in two lines, each with a thread of its own: nobody waits behind a long one (the tokenizer computes
    without holding Python's lock). What cannot be answered is sent by `Refusals`.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load this release's tokenizer."""
        directory = Path(args["model_repository"]) / args["model_version"]
        self._tokenize = ConversationTokenizer.load(Release.load(directory), directory)
        self._gate, self._graph_gate = Gate.of_environment(), Gate.before_graph(args["model_version"])
        self._refusals = Refusals()
        self._metrics = StepMetrics(args["model_version"], "tokenizer")
        limits = Limits.of(json.loads(args["model_config"]))
        self._short, self._long = (WaitingLine[Asked](limits, self._refuse) for _ in range(2))
        self._threads = [Thread(target=self._work, args=(line,)) for line in (self._short, self._long)]
        for thread in self._threads:
            thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Let each request wait for its turn: Triton holds none back."""
        closed = f"{wire.NOT_TAKING}: {why}" if (why := self._gate.reason()) else self._graph_gate.reason()
        for request in requests:
            if closed is not None:
                self._metrics.refused("unavailable" if why else "overloaded")
                send(request.get_response_sender(), error(closed, "UNAVAILABLE"))
                continue
            bodies = pb_utils.get_input_tensor_by_name(request, wire.REQUEST).as_numpy()
            is_long = bodies.size == 1 and len(bodies.item()) > _LONG_BYTES
            line = self._long if is_long else self._short
            line.join((request.get_response_sender(), bodies, time.perf_counter()), 1e-6 * request.timeout())
        self._metrics.hand_on()

    def finalize(self) -> None:
        """Answer what was taken."""
        for line in (self._short, self._long):
            line.close()
        for thread in self._threads:
            thread.join()
        self._refusals.close()
        self._metrics.close()

    def _work(self, line: WaitingLine[Asked]) -> None:
        while line.wait():
            for sender, bodies, since in line.take():
                self._metrics.waited(since)
                self._answer(sender, bodies)

    def _answer(self, sender: Any, bodies: Any) -> None:
        start = time.perf_counter()
        try:
            response = self._response(bodies)
        except InvalidConversation as exc:
            self._metrics.refused("invalid")
            refusal = error(str(exc), "INVALID_ARG")
            seconds, num_bytes = time.perf_counter() - start, sum(map(len, bodies.ravel()))
            self._refusals.offer(lambda: send(sender, refusal), seconds, num_bytes)
        except Exception:  # a request without a response would wait for ever
            pb_utils.Logger.log_error(traceback.format_exc())
            self._metrics.refused("failed")
            send(sender, error("the request could not be encoded; the server's log says why"))
        else:
            self._metrics.computed(time.perf_counter() - start)
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

    def _refuse(self, asked: Asked, why: str) -> None:
        self._metrics.refused("overloaded")
        send(asked[0], error(why, "UNAVAILABLE"))
