"""Releases on disk: what one is made of, who may write it, and which one is served.

    release.py       the manifest `release.json`, verified            calibration.py   what its scores mean
    repository.py    which releases there are, which one is pinned    decision.py      score → threshold → flag
    model_config.py  the text of a `config.pbtxt`                     atomic_file.py   replaced in one step, or not
    writer.py        the one writer: lock, number, draft, commit      adapters.py      the `model.py` files
    startup.py       what must hold before a server starts            software.py      this software's version
    journal.py       who did what, appended                           state_folder.py  `.rollout/`: where state lies
    file_lock.py     locks that die with their holder                 admin_key.py     the key of the control API
    spare_files.py   room kept for a rollback on a full disk

    export ─┐
    derive ─┼─► writer ─► repository ◄─ startup ◄─ serve
    policy ─┘      └─► journal ◄────────── rollout

A manifest holds a family, policies and a verdict tree, so those rooms are used. No model is computed here.
"""
