"""Structural similarity of pictures (Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment", 2004).

    SSIM = (2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2))

m are local means, s^2 and s_ab local variances and covariance; c1 = (0.01 L)^2, c2 = (0.03 L)^2 for values of span L.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def ssim(a: np.ndarray, b: np.ndarray, mean: Callable[[np.ndarray], np.ndarray], span: float = 1.0) -> np.ndarray:
    """Similarity at each place of two arrays of pictures, -1 to 1; shapes are broadcast.

    Args:
        a, b: pictures.
        mean: the local mean of an array of their shape: a window that is moved over it.
        span: L, the largest difference values can have.
    """
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    m_a, m_b = mean(a), mean(b)
    s_a, s_b, s_ab = mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b
    out: np.ndarray = (2 * m_a * m_b + c1) * (2 * s_ab + c2) / ((m_a**2 + m_b**2 + c1) * (s_a + s_b + c2))
    return out
