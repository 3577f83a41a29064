"""What keeps a server up, and says how it is.

supervisor.py   start ─► watch ─► start anew with backoff, or give up ─► drain
self_check.py   are its files and its golden answers still what was exported?
health.py       /ready /live /metrics
"""
