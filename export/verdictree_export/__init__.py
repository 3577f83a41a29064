"""Turns a guard's checkpoint into a release: an ONNX graph with a verdict head, and what is needed to serve it.

    exporter.py         checkpoints/ ─► prompts/ ─► graph/ ─► onnx_file/ ─► [int8/] ─► parity, golden ─► release
    policy_addition.py  release ─► prompts/ ─► onnx_file/ ─► release, without the checkpoint's weights
    inspection.py       checkpoints/ ─► prompts/ ─► what an export would look like

    parity.py   is the ONNX graph the checkpoint?         golden.py   what a server must repeat when it loads
    half.py     an fp32 graph in fp16 or bf16, judged
    answers.py  does the guard answer verdicts at all?    finite.py   numbers that prove something are numbers

The modules here are use cases and proofs; the five rooms are the subjects. A room uses those before it in the line, and
`finite`. `checkpoints`, `prompts` and `graph` know torch, `int8` knows onnx, and `onnx_file` leads from one to another.
"""
