"""Measures a guard on labelled data, calibrates its probabilities and chooses thresholds."""
