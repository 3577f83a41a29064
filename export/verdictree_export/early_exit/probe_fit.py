"""The probe: a logistic regression from hidden states to whether the guard, in full, would have found anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from verdictree_export.early_exit.observations import Floats, Observations

NOTICED = 0.05  # P(unsafe) from which on a conversation is not plainly safe, alert or not
_PENALTIES = (0.003, 0.01, 0.03, 0.1)  # C of scikit-learn
_FOLDS = 4


@dataclass(frozen=True)
class Probe:
    """Log-odds = features · weight + offset, for features (…, features)."""

    weight: Floats
    offset: float

    def log_odds(self, features: Floats) -> npt.NDArray[np.float64]:
        """(…,) for features (…, features)."""
        return np.asarray(features.astype(np.float64) @ self.weight + self.offset)


@dataclass(frozen=True)
class Fitted:
    """The probe, and what it says of the conversations that it was fitted to, each left out of the fit in its turn."""

    probe: Probe
    log_odds: npt.NDArray[np.float64]


def fit(observed: Observations, max_missed: float) -> Fitted:
    """The probe whose exits save most at the wanted risk; the penalty is chosen by cross-validation.

    Raises ValueError where all conversations are alike.
    """
    noticed = observed.alert | (observed.top >= NOTICED)
    target = observed.alert if noticed.all() else noticed
    if len(np.unique(target)) < 2:
        raise ValueError("all conversations are alike to the guard")
    held_out = {penalty: _held_out(observed.features, target, penalty) for penalty in _PENALTIES}
    best = max(_PENALTIES, key=lambda penalty: saving(held_out[penalty], observed.alert, max_missed))
    return Fitted(_probe(observed.features, target, best), held_out[best])


def saving(log_odds: npt.NDArray[np.float64], alert: npt.NDArray[np.bool_], max_missed: float) -> float:
    """The share of conversations that leave where `max_missed` of the alerts do."""
    alerts = np.sort(log_odds[alert])
    return float((log_odds < alerts[int(max_missed * len(alerts))]).mean()) if len(alerts) else 1.0


def _held_out(features: Floats, target: npt.NDArray[np.bool_], penalty: float) -> npt.NDArray[np.float64]:
    log_odds = np.empty(len(target))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    for fitted, left_out in folds.split(features, target):
        log_odds[left_out] = _probe(features[fitted], target[fitted], penalty).log_odds(features[left_out])
    return log_odds


def _probe(features: Floats, target: npt.NDArray[np.bool_], penalty: float) -> Probe:
    model = LogisticRegression(C=penalty, max_iter=1000).fit(features, target)
    return Probe(model.coef_[0].astype(np.float32), float(model.intercept_[0]))
