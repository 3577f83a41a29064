"""Releases on disk: what one is made of, who may write it, and which one is served.

    release.py       the manifest `release.json`, verified            calibration.py   what its scores mean
    prompt.py proofs.py early_exit.py   parts of it                   decision.py      score → threshold → flag
    repository.py    which releases there are, which one is pinned    model_config.py  the text of a `config.pbtxt`
    writer.py        the one writer: lock, number; draft.py: commit   adapters.py      the `model.py` files
    startup.py       what must hold before a server starts            score_counts.py  how a calibration's scores lie
    journal.py       who did what, appended                           state_folder.py  `.rollout/`: where state lies
                                                                      admin_key.py     the key of the control API

    export ─┐
    derive ─┼─► writer ─► repository ◄─ startup ◄─ serve
    policy ─┘      └─► journal ◄────────── rollout

A manifest holds a family, policies and a verdict tree, so those rooms are used. No model is computed here.
"""

from importlib.metadata import version

VERSION = version("verdictree")  # of the software that is running
