"""Does choosing what to label pay? The rule of `handful next` beside a random choice, replayed on labelled sets.

    python benchmarks/next.py [--data FOLDER] [--draws 20]                makes results/next.json (minutes)

Each draw starts from 3 labels a class and adds 30. The pool has its classes as often as the set has, or every second
one a tenth as often ("skewed"): there, rare classes must be found. At most 1500 items a set.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import accuracy as sets
import forecast
import numpy as np

from handful.adapt import head as make_head
from handful.evaluate.labelling import replay
from handful.files import whole_file

HEADS = ("prototypes", "logistic")
TASKS = ("trec", "agnews", "cr", "subj", "sst-5", "banking77-1", "banking77-2", "digits", "omniglot-1")
SHOTS, N, MOST = 3, 30, 1500


def main() -> int:
    """Replay every task and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "next.json")
    options = parser.parse_args()
    rows = []
    for task in (t for t in forecast.tasks(options.data) if t.name in TASKS):
        for kind in ("as it is", "skewed"):
            rng = np.random.default_rng(0)
            keep = rng.random(len(task.labels)) < np.where(rare(task.labels) & (kind == "skewed"), 0.1, 1.0)
            items = np.sort(rng.permutation(np.flatnonzero(keep))[:MOST])
            if np.unique(task.labels[items], return_counts=True)[1].min() < SHOTS + 2:
                continue
            for key in HEADS:
                head = make_head(key, random_state=0)
                x, y = task.features.take(items), task.labels[items]
                found = replay(head, x, y, N, shots=SHOTS, draws=options.draws)
                rows.append({"task": task.name, "pool": kind, "head": key, **found.as_dict()})
                print(line(rows[-1]), flush=True)
    with whole_file(options.out) as file:
        file.write((json.dumps({"rows": rows}, indent=1) + "\n").encode())
    return 0


def line(row: dict[str, Any]) -> str:
    """One row on the terminal, in percent and points."""
    gain = {name: 100 * value for name, value in row["gain"].items()}
    what = f"{row['task']:12} {row['pool']:9} {row['head']:11}"
    both = f"chosen {100 * row['picked']:.1f}  random {100 * row['random']:.1f}"
    return f"{what} {both}  gain {gain['value']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def rare(labels: np.ndarray) -> np.ndarray:
    """Items of every second class ``[n]``."""
    out: np.ndarray = np.unique(labels, return_inverse=True)[1] % 2 == 1
    return out


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
