"""Arrays of scores and labels in, numbers out: numpy, scipy and scikit-learn, and no guard.

baselines.py, calibrators.py, thresholds.py ─► decisions.py ─► metrics.py ─► resampling.py
other scores, fitted maps, chosen limits       what is flagged  figures       their intervals

evaluate.py    all of it for one evaluation; breakdowns.py: by source and length
calibrate.py   calibrators and thresholds for one policy
"""
