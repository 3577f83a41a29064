"""Round a weight to 8 bits so that the layer's output, not the weight itself, changes least.

For W (K, N) with a scale t_n for each output channel and X (tokens, K) the inputs it meets, minimize ‖XW − XP diag(t)‖²
over integers P, one input channel after the other: what rounding channel k changes is made up for by the channels
that are not rounded yet. With H = XᵀX + λ1 and H⁻¹ = UᵀU, U upper triangular:

    P_k· = round(W_k· / t)      e = (W_k· − t P_k·) / U_kk      W_j· −= U_kj e   for j > k

(GPTQ, arXiv 2210.17323, algorithm 1; largest H_kk first, as its `act-order`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVELS = 127
_DAMPING = 0.01  # λ as a share of H's mean diagonal
_BLOCK = 64
_LEAST_SCALE = 1e-12  # of a channel of zeros


def channel_scales(weight: npt.NDArray[np.float32], axis: int = 0) -> npt.NDArray[np.float32]:
    """max|W| / 127 along `axis`: the step of each channel."""
    return np.asarray(np.maximum(np.abs(weight).max(axis=axis) / LEVELS, _LEAST_SCALE), dtype=np.float32)


def round_to_nearest(weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """P = round(W / t), int8; `scales` broadcasts against `weight`."""
    return np.asarray(np.clip(np.round(weight / scales), -LEVELS, LEVELS), dtype=np.int8)


def round_with_compensation(
    weight: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], second_moment: npt.NDArray[np.float32]
) -> npt.NDArray[np.int8]:
    """P (K, N) int8 for `weight` (K, N), `scales` (N,) and Σ xxᵀ of its inputs (K, K); see the module."""
    order = np.argsort(-np.diag(second_moment), kind="stable")
    left = weight[order].astype(np.float32)
    factor = _inverse_factor(second_moment[np.ix_(order, order)].astype(np.float64))
    rounded = np.empty(weight.shape, dtype=np.int8)
    for start in range(0, len(left), _BLOCK):
        end = min(start + _BLOCK, len(left))
        errors = np.empty((end - start, weight.shape[1]), dtype=np.float32)
        for k in range(start, end):
            rounded[k] = round_to_nearest(left[k], scales)
            errors[k - start] = (left[k] - rounded[k] * scales) / factor[k, k]
            left[k + 1 : end] -= factor[k, k + 1 : end, None] * errors[k - start]
        left[end:] -= factor[start:end, end:].T @ errors
    return rounded[np.argsort(order)]


def _inverse_factor(second_moment: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """U, upper triangular, with UᵀU = (H + λ1)⁻¹."""
    diagonal = np.diag(second_moment).mean()
    damped = second_moment + np.eye(len(second_moment)) * (_DAMPING * diagonal if diagonal > 0 else 1.0)
    return np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
