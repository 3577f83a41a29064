"""Systems under measurement that run in a process of their own, some in an environment of their own.

Each is started as `python -m benchmarks.programs.NAME` in the repository's root and speaks the protocol of
`answering`, which needs nothing but Python's standard library.
"""
