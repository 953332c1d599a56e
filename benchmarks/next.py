"""Does choosing what to label pay? The rule of `handful next` beside a random choice, replayed on labelled sets.

    python benchmarks/next.py [--data FOLDER] [--draws 10]                makes results/next.json (minutes)

Each draw adds 30 labels to those that are there (`CASES`): 1 or 3 of each class; 1 of every second class and 6 of the
others ("short"), which are to catch up; 1 of each class in a pool that has every second class a tenth as often
("skewed"). At most 1500 items a set. The gain of one task has two intervals: of the mean over draws of these very
items, and, wider, for new items of the kind (`handful next --replay` prints that); gains of all tasks together
resample families of data sets.

Rules were compared on the sets `CHOSEN` only, with prototypes and other draws. Mean recall over a random choice, in
points, with 1 or 2 labels a class, short and skewed, 10 draws: k-centre (core-set) -2.2, a draw by need alone -0.3,
k-means++ 0.2, margin 0.3, BADGE 0.5 to 0.6 (the rule before), TypiClust 2.7, coverage of balls (ProbCover) 3.8,
facility location 3.7, with need 3.9, with doubt 3.4, with both 3.6. In further draws, without looking at what is
labelled already, which a model's file does not hold: facility location with need 3.8, with the root of doubt besides
3.6, which gained more on four sets and lost on Fashion-MNIST. Half and twice the width of the kernel, on three sets:
4.3 and 4.4 in place of 4.3.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import accuracy as sets
import forecast
import numpy as np
from scipy import stats

from handful.adapt import head as make_head
from handful.core.intervals import percentiles, resample
from handful.evaluate.labelling import Replay, replay
from handful.files import whole_file

CHOSEN = ("trec", "agnews", "subj", "fashion-mnist", "banking77-1", "digits")
OTHERS = ("cr", "sst-5", "whu-rs19", "banking77-2", "omniglot-1", "breast-cancer")
CASES: Mapping[str, tuple[int, int, float]] = {
    "1 a class": (1, 1, 1.0),
    "3 a class": (3, 3, 1.0),
    "short": (6, 1, 1.0),
    "skewed": (1, 1, 0.1),
}
"""Labels of one half of the classes, of the other half, and how many items of the other half are in the pool."""
SLOW = ("fashion-mnist", "digits", "whu-rs19", "omniglot-1", "breast-cancer")
"""Not replayed with logistic regression, which takes seconds a draw there."""
N, MOST = 30, 1500


def main() -> int:
    """Replay every task and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "next.json")
    options = parser.parse_args()
    rows = []
    for task in (t for t in forecast.tasks(options.data) if t.name in CHOSEN + OTHERS):
        for case in CASES:
            items, shots = setting(task.labels, case)
            for key in ("prototypes", "logistic")[: 1 if task.name in SLOW else 2]:
                found = replay(
                    make_head(key, random_state=0),
                    task.features.take(items),
                    task.labels[items],
                    N,
                    shots=shots,
                    draws=options.draws,
                )
                set_ = {"task": task.name, "family": task.family, "chosen on": task.name in CHOSEN}
                rows.append({**set_, "case": case, "head": key, **found.as_dict(), "these items": paired(found)})
                print(line(rows[-1]), flush=True)
    together = summary(rows)
    for row in together:
        print(json.dumps(row))
    with whole_file(options.out) as file:
        file.write((json.dumps({"rows": rows, "together": together}, indent=1) + "\n").encode())
    return 0


def setting(labels: np.ndarray, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Items of a case and how many of each class are labelled to begin with."""
    shots, second, share = CASES[case]
    rng, half = np.random.default_rng(0), np.unique(labels, return_inverse=True)[1] % 2 == 1
    keep = rng.random(len(labels)) < np.where(half, share, 1.0)
    items = np.sort(rng.permutation(np.flatnonzero(keep))[:MOST])
    classes, counts = np.unique(labels[items], return_counts=True)
    items = items[np.isin(labels[items], classes[counts >= 3])]
    return items, np.where(np.isin(np.unique(labels[items]), labels[half]), second, shots)


def paired(found: Replay) -> dict[str, float]:
    """Student's interval of the mean gain over draws."""
    half = float(stats.sem(found.gains) * stats.t.ppf(0.975, found.draws - 1))
    return {"value": found.gain.value, "low": found.gain.value - half, "high": found.gain.value + half}


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean gain of tasks, in points, and in how many it is above or below nothing on these items."""
    out = []
    for chosen in (True, False):
        for key in ("prototypes", "logistic"):
            for case in (*CASES, "all"):
                some = [r for r in rows if (r["chosen on"], r["head"]) == (chosen, key) and case in (r["case"], "all")]
                if not some:
                    continue
                table = np.array([[100 * r["gain"]["value"], 1.0] for r in some])
                family = np.unique([r["family"] for r in some], return_inverse=True)[1]
                drawn = resample(table, lambda s: s[:, :1] / s[:, 1:], groups=family, replicates=2000)
                out.append({
                    "chosen on": chosen, "head": key, "case": case, "replays": len(some),
                    "won": sum(r["these items"]["low"] > 0 for r in some),
                    "lost": sum(r["these items"]["high"] < 0 for r in some),
                    "gain": percentiles(float(table[:, 0].mean()), drawn[:, 0]).as_dict(),
                })  # fmt: skip
    return out


def line(row: Mapping[str, Any]) -> str:
    """One row on the terminal, in percent and points."""
    gain = {name: 100 * value for name, value in row["these items"].items()}
    what = f"{row['task']:13} {row['case']:9} {row['head']:10}"
    both = f"chosen {100 * row['picked']:.1f}  random {100 * row['random']:.1f}"
    return f"{what} {both}  gain {gain['value']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
