"""What an evaluation or a calibration is told where nobody says otherwise."""

from __future__ import annotations

CONCURRENCY = 8  # requests in flight to a server
NUM_RESAMPLES = 1000  # of the bootstrap
MIN_POSITIVES = 20  # fewer are no ground for a calibrator or a threshold
