"""Small data and golden numbers for the tests of heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def golden() -> Callable[[str], tuple[dict[str, Any], Any]]:
    """Inputs and expected numbers of a file in ``tests/golden``, made by running the authors' code."""

    def read(name: str) -> tuple[dict[str, Any], Any]:
        path = Path(__file__).parents[1] / "golden" / f"{name}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["inputs"], content["expected"]

    return read


@pytest.fixture
def blobs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Features ``[n, d]`` around one centre a class, and labels."""

    def make(
        ways: int = 4, shots: int | tuple[int, ...] = 6, width: int = 10, *, noise: float = 0.7, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(seed)
        counts = (shots,) * ways if isinstance(shots, int) else shots
        labels = np.repeat(np.arange(len(counts)), counts)
        centres = draw.normal(size=(len(counts), width))
        return centres[labels] + noise * draw.normal(size=(len(labels), width)), labels

    return make


@pytest.fixture
def shots() -> tuple[int, ...]:
    """Examples of each class of `problem`."""
    return (5, 3, 2, 4)


@pytest.fixture
def problem(
    blobs: Callable[..., tuple[np.ndarray, np.ndarray]], shots: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Support, labels, queries and class text of four classes."""
    x, y = blobs(shots=shots)
    return x, y, blobs(shots=5, seed=1)[0], np.random.default_rng(2).normal(size=(4, 10))
