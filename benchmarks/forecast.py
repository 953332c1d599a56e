"""How far off is the forecast of accuracy with more labels, beside a power law? Leaves out one family of data sets.

    python benchmarks/forecast.py curves [--data FOLDER] [--seeds 10]     makes results/curves.json (minutes)
    python benchmarks/forecast.py [--out FILE]                            makes results/forecast.json from it

A curve is one task, one head, one draw: accuracy on items that are never learnt from with 1, 2, 4, … examples a class,
each draw holding the smaller ones; and the pilots, what `estimate` says of 4 and 8 examples a class from nothing but
them, which is what the card of a model says. Sub-tasks of one data set, and sets made of the same texts (SST-2, SST-5
and MR), are one family.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accuracy as sets
import numpy as np
import trust

from handful.adapt import head as make_head
from handful.adapt.base import Features
from handful.evaluate.estimate import estimate
from handful.files import whole_file

HEADS = ("prototypes", "gda", "logistic")
PILOTS = (4, 8)
MOST = 2000  # items tested on
LARGEST, ROWS = 256, 1280  # shots, and examples learnt from, at most
KEPT = 4  # items of a class that are left to test on, at least
RESULTS = sets.HERE / "results"


@dataclass(frozen=True)
class Task:
    """A problem: features and labels, all of them."""

    name: str
    family: str
    features: Features
    labels: np.ndarray


def main() -> int:
    """Make curves, or judge forecasts of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("curves", "judge"), default="judge")
    parser.add_argument("--data", type=Path, default=sets.SHARED)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--curves", type=Path, default=RESULTS / "curves.json")
    parser.add_argument("--out", type=Path, default=RESULTS / "forecast.json")
    options = parser.parse_args()
    if options.what == "curves":
        return make_curves(options.data, options.seeds, options.curves)
    return 0


def make_curves(folder: Path, seeds: int, out: Path) -> int:
    """Every curve of every task, written as they are made."""
    if not folder.is_dir():
        print(f"no data in {folder}: give --data", file=sys.stderr)
        return 2
    curves: list[dict[str, Any]] = []
    for task in tasks(folder):
        start = time.monotonic()
        curves += [curve(task, key, seed) for key in HEADS for seed in range(seeds)]
        last = curves[-1]["truth"]
        with whole_file(out) as file:
            file.write(_written(curves).encode())
        print(f"{task.name:16} {time.monotonic() - start:5.0f} s  {last}", flush=True)
    return 0


def _written(curves: list[dict[str, Any]]) -> str:
    """One line a curve."""
    return "[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in curves) + "\n]\n"


def curve(task: Task, key: str, seed: int) -> dict[str, Any]:
    """One task, head and draw."""
    rng = np.random.default_rng(seed)
    draw = rng.random(len(task.labels))
    order = np.lexsort((draw, task.labels))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(task.labels[order], task.labels[order])
    least = int(np.unique(task.labels, return_counts=True)[1].min())
    ways = len(np.unique(task.labels))
    shots = [2**k for k in range(9) if 2**k <= min(LARGEST, least - KEPT, ROWS // ways)]
    test = rng.permutation(np.flatnonzero(rank >= shots[-1]))[:MOST]
    asked, true = task.features.take(test), task.labels[test]

    def balanced(found: np.ndarray) -> float:
        share = [float((found[true == c] == c).mean()) for c in np.unique(true)]
        return round(float(np.mean(share)), 4)

    truth, pilots = [], {}
    for m in shots:
        learn = np.flatnonzero(rank < m)
        head = make_head(key, random_state=seed)
        truth.append([m, balanced(head.fit(task.features.take(learn), task.labels[learn]).predict(asked))])
        if m in PILOTS and 2 * m <= shots[-1]:
            quoted = estimate(head, task.features.take(learn), task.labels[learn], seed=seed)
            assert quoted is not None  # every class has four shots
            each = [(p.shots, p.accuracy) for p in quoted.curve]
            pilots[m] = [[k, *(round(v, 4) for v in (a.value, a.low, a.high))] for k, a in each]
    return {
        "task": task.name, "family": task.family, "ways": ways, "head": key, "seed": seed, "tested": len(test),
        "truth": truth, "pilots": pilots,
    }  # fmt: skip


# --- tasks -----------------------------------------------------------------------------------------------------------


def tasks(folder: Path) -> Iterator[Task]:
    """All of them, one at a time."""
    for name, (family, load) in WHOLE.items():
        data = load(folder)
        x = Features(data.features.x, {})  # single heads read these alone
        yield Task(name, family, *enough(x, data.labels))
        if name == "banking77":
            yield from parts(data, name, "banking", 10, 4)
    data = trust.zipped(folder, "omniglot/images_background_small1.zip")
    alphabet = np.array([label.split("/")[-2] if "/" in label else "" for label in data.labels])
    for k, letters in enumerate(sorted(set(alphabet))):
        rows = np.flatnonzero(alphabet == letters)
        yield Task(f"omniglot-{k + 1}", "omniglot", Features(data.features.x[rows], {}), data.labels[rows])
    from sklearn.datasets import load_breast_cancer, load_digits

    for name, table in (("digits", load_digits()), ("breast-cancer", load_breast_cancer())):
        x = (table.data - table.data.mean(0)) / (table.data.std(0) + 1e-9)
        yield Task(name, name, Features(x.astype(np.float32), {}), table.target.astype(str))


def enough(features: Features, labels: np.ndarray) -> tuple[Features, np.ndarray]:
    """Classes with few items left out, so that others are seen far."""
    names, counts = np.unique(labels, return_counts=True)
    rows = np.flatnonzero(np.isin(labels, names[counts >= min(64 + KEPT, np.median(counts))]))
    return features.take(rows), labels[rows]


def parts(data: trust.Set, name: str, family: str, ways: int, count: int) -> Iterator[Task]:
    """Sub-tasks of some of the classes, no class in two."""
    names, counts = np.unique(data.labels, return_counts=True)
    order = np.random.default_rng(0).permutation(names[counts >= 128 + KEPT])
    for k in range(count):
        rows = np.flatnonzero(np.isin(data.labels, order[ways * k : ways * (k + 1)]))
        yield Task(f"{name}-{k + 1}", family, data.features.take(rows), data.labels[rows])


WHOLE: Mapping[str, tuple[str, Callable[[Path], trust.Set]]] = {
    "trec": ("trec", lambda folder: trust.few_shot_text(folder, "trec")),
    "agnews": ("agnews", lambda folder: trust.few_shot_text(folder, "agnews")),
    "cr": ("cr", lambda folder: trust.few_shot_text(folder, "cr")),
    "subj": ("subj", lambda folder: trust.few_shot_text(folder, "subj")),
    "mr": ("reviews", lambda folder: trust.few_shot_text(folder, "mr")),
    "sst-2": ("reviews", lambda folder: trust.few_shot_text(folder, "sst-2")),
    "sst-5": ("reviews", lambda folder: trust.few_shot_text(folder, "sst-5")),
    "whu-rs19": ("whu", lambda folder: trust.zipped(folder, "whu_rs19_224.zip")),
    "fashion-mnist": ("fashion", trust.fashion),
    "banking77": ("banking", trust.banking),
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
