"""What unlabelled items are worth to `auto`: the same few labels without a pool and with pools of several kinds.

    python benchmarks/pool.py [--data FOLDER] [--seeds 5] [--only NAME …]

Pools never hold an item that is learnt from or tested on: ``all`` is up to 3,000 of the others, as they come; ``few``
50 of them; ``uneven`` has each class with a weight drawn from Dirichlet(1/2) over the largest; ``half`` lacks every
second class, all of which are tested. Writes ``results/pool.json``; intervals are Student's t over draws, differences
are paired.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from accuracy import HERE, SETS, SHARED, Set, draw, folder  # beside this file

from handful.adapt import head as make_head
from handful.core.intervals import mean_interval
from handful.encode import default_encoder
from handful.files import whole_file
from handful.ship.model import class_text_vectors

NAMES = ("banking77", "trec", "agnews", "cr", "sst-2", "whu-rs19", "fashion-mnist")
SHOTS = (1, 2, 5, 16)
KINDS = ("all", "few", "uneven", "half")
POOL, TEST, FEW = 3000, 2000, 50


def main() -> int:
    """Run all sets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "pool.json")
    options = parser.parse_args()
    rows = []
    for name in options.only or NAMES:
        data = SETS[name](options.data)
        for shots in SHOTS:
            if np.unique(data.labels, return_counts=True)[1].min() >= shots + 5:
                rows.append(one(name, data, shots, options.seeds))
                print(line(rows[-1]), flush=True)
    with whole_file(options.out) as file:
        file.write(json.dumps({"seeds": options.seeds, "rows": rows}, indent=1).encode())
    return 0


def one(name: str, data: Set, shots: int, seeds: int) -> dict[str, object]:
    """Accuracy of ``auto`` without a pool, and what each kind of pool adds, in percent."""
    tower = default_encoder(data.modality)
    text = class_text_vectors(tower, data.names) if data.names else None
    found: dict[str, list[float]] = {kind: [] for kind in ("none", *KINDS)}
    for seed in range(seeds):
        learn, held = draw(data.labels, shots, seed)
        rng = np.random.default_rng(seed)
        rest = rng.permutation(held)
        if data.test is None:
            rest, kept = np.array_split(rest, 2)
            test = data.features.take(kept[:TEST]), data.labels[kept[:TEST]]
        else:
            test = data.test
        pools = pools_of(rest[:POOL], data.labels, rng)
        for kind, rows in {"none": None, **pools}.items():
            pool = None if rows is None else data.features.take(rows)
            head = make_head("auto", text=text, logit_scale=tower.logit_scale, random_state=seed, unlabelled=pool)
            head.fit(data.features.take(learn), data.labels[learn])
            found[kind].append(100 * float((head.predict(test[0]) == test[1]).mean()))
    gains = {kind: mean_interval(np.subtract(found[kind], found["none"])).as_dict() for kind in KINDS}
    return {"set": name, "shots": shots, "accuracy": mean_interval(found["none"]).as_dict(), "gain": gains}


def pools_of(rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Positions of the items of each pool."""
    classes, codes = np.unique(labels, return_inverse=True)
    weight = rng.dirichlet(np.full(len(classes), 0.5))
    kept = rng.random(len(rows)) < (weight / weight.max())[codes[rows]]
    few, half = rng.permutation(rows)[:FEW], rows[codes[rows] % 2 == 0]
    return {"all": rows, "few": few, "uneven": rows[kept], "half": half}


def line(row: dict) -> str:
    """One row of the table on the terminal."""
    gains = "  ".join(f"{k} {g['value']:+.1f} [{g['low']:+.1f}, {g['high']:+.1f}]" for k, g in row["gain"].items())
    return f"{row['set']:14} {row['shots']:2} shots  auto {row['accuracy']['value']:.1f}  {gains}"


if __name__ == "__main__":
    sys.exit(main())
