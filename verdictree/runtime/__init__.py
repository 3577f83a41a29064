"""A release at work: the three steps of a request, and the same steps in one process.

    conversation ─► tokenization.py ─► session.py: the graph ─► scorer.py ─► verdict
                    token ids          ONNX Runtime             marginals, calibration, flags

    encoded_text.py       a conversation's ids, and where they stand in it
    text_pieces.py        a long text in pieces, to count its tokens
    windows.py            a conversation that is too long, part by part
    graph_io.py           the graph's inputs and outputs by name
    plain_text.py         tokenizers to which a stranger's text is text
    processor.py          is this processor's uint8 × int8 product exact?
    unsigned_weights.py   what is done where it is not
    local_guard.py        all three steps here, without a server
    golden_check.py       does a server still say what the release said at its export?

On a server each step runs in a model process of Triton (`verdictree_serving.triton_steps`); the code is this one.
"""
