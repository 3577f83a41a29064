"""Measures a guard on labelled rows, and fits what its scores mean.

evaluation_run.py, calibration_run.py     the two commands, start to end, over one session.py
    │
    ▼
data/ ─► scoring.py (a LocalGuard, or a served one) ─► metrics/ ─► reports/
"""
