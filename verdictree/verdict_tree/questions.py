"""Questions side by side: a guard that is asked about one category at a time judges a request by several prompts.

To a caller, and to Triton, a request is one row, with its questions side by side. To the graph, and to the marginals,
each question is a row of its own:

    by request   (batch, questions · nodes, …)     [[a0 a1 b0 b1]      two requests of questions a, b
                                                    [c0 c1 d0 d1]]     and c, d; two nodes each
    by question  (batch · questions, nodes, …)     [[a0 a1] [b0 b1] [c0 c1] [d0 d1]]

What is done here is plain `reshape` and arithmetic, so it takes numpy arrays and torch tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def repeated(ids: npt.NDArray[np.int64], questions: int) -> npt.NDArray[np.int64]:
    """A conversation's ids (tokens,), once for each question: (questions * tokens,)."""
    return np.tile(ids, questions)


def ends_by_question(starts: Any, lengths: Any, numbers: Any) -> Any:
    """Where the ids of each question end, (batch * questions,), in the ids of a batch of requests.

    `starts` and `lengths` (batch,) are those of each request's `repeated` ids, `numbers` are 1 … questions.
    """
    own = lengths // numbers.shape[0]
    return (starts.reshape(-1, 1) + own.reshape(-1, 1) * numbers).reshape(-1)


def by_question(output: Any, questions: int) -> Any:
    """(batch, questions * nodes, …) → (batch * questions, nodes, …)."""
    return output.reshape(output.shape[0] * questions, output.shape[1] // questions, *output.shape[2:])


def by_request(output: Any, requests: int) -> Any:
    """(batch * questions, nodes, …) → (batch, questions * nodes, …), where the batch has so many requests.

    A graph that is traced gets a shape that a runtime cannot infer: Triton wants a model's configuration and its graph
    to agree on every dimension, and one configuration serves all releases. It leaves sizes open, so the graph must
    leave them open too; adding `nothing` does that.
    """
    nothing = output.shape[0] * 0
    return output.reshape(requests, -1, *(size + nothing for size in output.shape[2:]))
