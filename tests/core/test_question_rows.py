"""Questions of a request: there and back again, in arrays and in tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verdictree.verdict_tree.questions import by_question, by_request, ends_by_question, repeated

SIZES = st.integers(1, 4)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy])
@given(batch=SIZES, questions=SIZES, nodes=SIZES, rest=st.lists(SIZES, max_size=2))
def test_there_and_back(array, batch, questions, nodes, rest):
    """A question that comes back at another's place would be judged by another category's answer."""
    output = array(np.arange(batch * questions * nodes * int(np.prod(rest))).reshape(batch, questions * nodes, *rest))
    apart = by_question(output, questions)
    assert tuple(apart.shape) == (batch * questions, nodes, *rest)
    assert (by_request(apart, batch) == output).all()
    # Question q of request r is row r · questions + q, and has nodes q · nodes … of the request's.
    for request in range(batch):
        for question in range(questions):
            own = output[request, question * nodes : (question + 1) * nodes]
            assert (apart[request * questions + question] == own).all()


@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), questions=SIZES)
def test_repeated_ids_end_where_they_are_said_to(array, lengths, questions):
    """Where a question's ids end is computed from the request's, which repeat the conversation for each question."""
    conversations = [np.arange(100 * i, 100 * i + length) for i, length in enumerate(lengths)]
    rows = [repeated(ids, questions) for ids in conversations]
    row_ends = np.cumsum([len(row) for row in rows])
    starts, own = row_ends - [len(row) for row in rows], [len(row) for row in rows]
    ends = np.asarray(ends_by_question(array(starts), array(own), array(np.arange(1, questions + 1))))
    parts = np.split(np.concatenate(rows), ends[:-1])
    expected = [ids for ids in conversations for _ in range(questions)]
    assert ends[-1] == row_ends[-1] and len(parts) == len(expected)
    assert all((part == ids).all() for part, ids in zip(parts, expected, strict=True))
