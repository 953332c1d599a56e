"""Whether cost grows as it should: linear in episodes and in queries, memory bounded, strengths chosen in closed form.

    python benchmarks/scaling.py [--threads 2] [--out results/scaling.json]

Episodes of `benchmarks/episodes.py`'s synthetic features. ``slope`` is that of log seconds on log size: 1 is linear.
Leave-one-out: 77 classes x 16 shots x 384 numbers, class text given, 30 strengths, each head's choice timed as ``fit``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import episodes as data
import numpy as np
import torch

from handful.adapt import head
from handful.evaluate.episodic import run
from handful.evaluate.sampling import draw
from handful.files import whole_file

HEADS = ("prototypes", "gda", "pt-map", "tim-adm")
EPISODES, QUERIES = (250, 500, 1000, 2000, 4000), (5, 10, 20, 40, 80)
MANY = 20_000
CLASSES, SHOTS, WIDTH, STRENGTHS = 77, 16, 384, 30
ROUNDS = 3


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    features, labels = data.features()
    x = features["shares"]
    found = {
        "threads": options.threads,
        "episodes": [growth(key, x, labels, [(e, data.QUERIES) for e in EPISODES]) for key in HEADS],
        "queries": [growth(key, x, labels, [(200, q) for q in QUERIES]) for key in HEADS],
        "memory": [memory(key, x, labels) for key in HEADS[:2]],
        "strengths": [strengths(key) for key in ("gda", "proker", "kernel-ridge")],
    }
    print(json.dumps(found, indent=1))
    with whole_file(options.out) as file:
        file.write((json.dumps(found, indent=1) + "\n").encode())


def growth(key: str, x: np.ndarray, labels: np.ndarray, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """Seconds for each number of (episodes, queries a class), the best of some rounds, and how they grow."""
    seconds = []
    for count, queries in sizes:
        drawn = draw(labels, ways=5, shots=1, queries=queries, episodes=count, seed=0)
        seconds.append(min(run(head(key), x, labels, drawn).seconds for _ in range(ROUNDS)))
    size = [count * queries for count, queries in sizes]
    return {
        "head": key,
        "sizes": [list(pair) for pair in sizes],
        "seconds": seconds,
        "slope": float(np.polyfit(np.log(size), np.log(seconds), 1)[0]),
    }


def memory(key: str, x: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Peak memory of very many episodes, bytes."""
    drawn = draw(labels, ways=5, shots=1, queries=data.QUERIES, episodes=MANY, seed=0)
    found = run(head(key), x, labels, drawn)
    return {"head": key, "episodes": MANY, "peak": found.peak_memory, "what": found.memory_kind}


def strengths(key: str) -> dict[str, Any]:
    """Seconds of a fit that chooses among `STRENGTHS` values of each strength it has, the best of some rounds."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), SHOTS)
    means = rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    x = means[y] + 2 * rng.standard_normal((len(y), WIDTH), dtype=np.float32)
    text = {c: means[c] + 2 * rng.standard_normal(WIDTH, dtype=np.float32) for c in range(CLASSES)}
    grid = tuple(np.logspace(-3, 1, STRENGTHS).tolist())
    parameters = {"gda": {}, "proker": {"beta": 3.0, "lam": "loo"}, "kernel-ridge": {"beta": 3.0, "alpha": "loo"}}[key]
    seconds = []
    with patch("handful.adapt.gda.GRID", grid), patch("handful.adapt.kernel.STRENGTHS", grid):
        for _ in range(ROUNDS):
            start = time.perf_counter()
            head(key, text=text, **parameters).fit(x, y)
            seconds.append(time.perf_counter() - start)
    return {"head": key, "strengths": STRENGTHS, "seconds": min(seconds)}


if __name__ == "__main__":
    main()
