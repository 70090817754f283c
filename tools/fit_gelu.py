#!/usr/bin/env python3
"""Fit the polynomial by which the NumPy backend computes the exact GELU (backends/numpy/kernels.py).

    pip install numpy scipy
    python tools/fit_gelu.py

With P the standard normal distribution, log(P(x) / P(-x)) = x * f(x * x) for a smooth f. GELU(x) = x * P(x) is then
x / (1 + exp(-x * f(x * x))): one exponential, one division, and no erf, which NumPy does not have. f is fitted on
0 <= x <= 5.5 by iteratively reweighted least squares in Chebyshev polynomials, which tends to the minimax fit; an
error of f counts as much as it moves GELU.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import Polynomial
from numpy.polynomial.chebyshev import cheb2poly, chebvander
from scipy.special import log_ndtr, ndtr

END, DEGREE = 5.5, 8


def fit() -> np.ndarray:
    """Return the coefficients of f, lowest power of x * x first."""
    square = (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 20001))) * END**2 + 1e-12
    x = np.sqrt(square)
    wanted = (log_ndtr(x) - log_ndtr(-x)) / x
    matters = x * x * ndtr(x) * ndtr(-x) + 2e-3 * x
    basis = chebvander(2 * square / END**2 - 1, DEGREE)
    weight = np.ones_like(x)
    coefficients = np.zeros(DEGREE + 1)
    for _ in range(300):
        coefficients = np.linalg.lstsq(basis * (matters * weight)[:, None], wanted * matters * weight, rcond=None)[0]
        error = np.abs(basis @ coefficients - wanted) * matters
        weight *= (error / error.max() + 1e-3) ** 0.3
        weight /= weight.max()
    return np.asarray(Polynomial(cheb2poly(coefficients))(Polynomial([-1, 2 / END**2])).coef)


def main() -> None:
    """Print the coefficients, and the largest error of GELU in float32 relative to max(1, |GELU|)."""
    coefficients = fit().astype(np.float32)
    x = np.linspace(-12, 12, 2_000_001).astype(np.float32)
    square = np.minimum(x * x, np.float32(END**2))
    value = np.full_like(square, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * square + coefficient
    with np.errstate(over="ignore"):
        ours = x / (np.exp(-(value * x)) + 1)
    exact = x.astype(np.float64) * ndtr(x.astype(np.float64))
    print([float(one) for one in coefficients])
    print(f"largest error: {np.max(np.abs(ours - exact) / np.maximum(1, np.abs(exact))):.2e}")


if __name__ == "__main__":
    main()
