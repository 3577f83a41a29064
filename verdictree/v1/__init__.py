"""The typed interface of a served guard, version 1: `guard.proto`, and what a conversation and a verdict are in it.

    guard.proto       the interface, for every language
    guard_pb2*.py     Python stubs made from it by `make stubs`
    messages.py       conversations and verdicts, from and to its messages

    Conversation ──request──► ClassifyRequest ──conversation──► Conversation
    Verdict ──────answer────► v1.Verdict ───────verdict───────► Verdict

Nothing else of the core imports this room, which needs protobuf and grpcio.
"""
