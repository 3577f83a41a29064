"""Fit the early exit of a release, and prove what it misses.

    observations.py   what the guard says of conversations in full, and what the probe would read of them
    probe_fit.py      the probe: a logistic regression on those hidden states
    risk_control.py   the threshold below which conversations leave, with a proof; limits of P(unsafe) below it
    fitting.py        all of it, for a release's graph
    request.py        the same while a guard is exported, with its checks first and its layer chosen by layer_choice.py
    new_release.py    the same for a release that exists: a new one, with the weights' file shared

In the graph the exit is `graph.early_exit`; in a manifest, `verdictree.releases.early_exit`.
"""
