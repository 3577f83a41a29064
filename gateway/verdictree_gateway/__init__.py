"""The one public door before Triton. Nothing that a stranger wrote goes further but one bounded text, built anew.

callers ──gRPC──► grpc_guard.py   verdictree.v1.Guard ┐
        ──gRPC──► grpc_kserve.py  KServe v2           ├─► front.py ─────────► triton.py ──► Triton's own port
        ──HTTP──► web/            JSON, a page        ┘     who (tenants.py), may they,
                                                            is there room, count it (observing/)

refused.py       why there is no verdict: one error, which each port says in its protocol's words
observing/       what an operator sees: metrics, drift, audit log, traces
policies.py      what may be asked about
worker.py        one process: all ports in one event loop
workers.py       the processes from outside: shared ports, replacement, drain, metrics added up
settings.py      what they are started with
"""
