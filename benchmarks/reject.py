"""How well each kind of ``fit --reject`` tells items of unknown classes, and whether its false alarms are as asked for.

    python benchmarks/reject.py [--data FOLDER] [--draws 20] [--only SET …]

Every draw takes half of the classes as known, K examples of each, and fits `auto` on them. Other items of known classes
and items of the other half, which no choice has seen, are then scored, at most 1,500 of each. A row of
``results/reject.json`` has for each kind, as means over draws with Student's t intervals:

    auroc, fpr95         of these items
    false_alarms, found  share of known and unknown items that the threshold for 5 % calls none of the classes
    simulated            AUROC as `fit` reports it without negatives, from the examples alone
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import accuracy as sets
import numpy as np
import trust

from handful.adapt import head as make_head
from handful.adapt.reject import REJECTERS, rejecter
from handful.core.intervals import mean_interval
from handful.evaluate.estimate import estimate
from handful.evaluate.open_set import false_positives, separation
from handful.evaluate.rejection import rejecting
from handful.files import whole_file

SETS = {"banking77": (3, 8), "trec": (16,), "whu-rs19": (5,), "fashion-mnist": (5,)}
SHARE, MOST = 0.05, 1500
COLUMNS = ("auroc", "fpr95", "false_alarms", "found", "simulated")


def main() -> int:
    """Run all sets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "reject.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    for name, many in SETS.items():
        if options.only and name not in options.only:
            continue
        data = trust.SETS[name][0](options.data)
        for shots in many:
            start = time.monotonic()
            draws = [one(data, shots, seed) for seed in range(options.draws)]
            rows = [row for row in rows if (row["set"], row["shots"]) != (name, shots)]
            rows.append({"set": name, "shots": shots, "draws": len(draws), **summary(draws)})
            print(line(rows[-1]), f"{time.monotonic() - start:.0f} s", flush=True)
            rows.sort(key=lambda row: (list(SETS).index(row["set"]), row["shots"]))
            with whole_file(options.out) as file:
                file.write(json.dumps({"share": SHARE, "rows": rows}, indent=1).encode())
    return 0


def one(data: trust.Set, shots: int, seed: int) -> dict[str, dict[str, float]]:
    """One draw: what each kind comes to, in per cent."""
    rng = np.random.default_rng(seed)
    classes = np.unique(data.labels)
    known = np.sort(rng.permutation(classes)[: (len(classes) + 1) // 2])
    inside = np.isin(data.labels, known)
    rows = np.flatnonzero(inside)
    learn, held = (rows[part] for part in sets.draw(data.labels[rows], shots, seed))
    held, alien = rng.permutation(held)[:MOST], rng.permutation(np.flatnonzero(~inside))[:MOST]
    x, y = data.features.take(learn), data.labels[learn]
    vectors = None if data.vectors is None else {c: data.vectors[c] for c in known if c in data.vectors}
    head = make_head("auto", text=vectors or None, logit_scale=data.logit_scale, random_state=seed).fit(x, y)
    quoted = estimate(head, x, y, seed=seed)
    assert quoted is not None  # every class has two shots
    asked = data.features.take(np.concatenate([held, alien]))
    logits = quoted.scale * head.spread(x, y) * np.asarray(head.logits(asked), dtype=float)
    out = {}
    for kind in REJECTERS:
        found = rejecting(rejecter(kind), head, x, y, None, quoted, SHARE, seed=seed)
        scores = rejecter(kind).scores(rejecter(kind).fit(x, y, seed=seed), asked, logits)
        a, b = scores[: len(held)], scores[len(held) :]
        values = {
            "auroc": separation(a, b).value,
            "fpr95": false_positives(a, b).value,
            "false_alarms": float((a > found.threshold).mean()),
            "found": float((b > found.threshold).mean()),
            "simulated": float("nan") if found.auroc is None else found.auroc.value,
        }
        out[kind] = {name: 100 * value for name, value in values.items()}
    return out


def summary(draws: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Means over draws."""
    return {
        kind: {name: mean_interval([draw[kind][name] for draw in draws], within=(0, 100)).as_dict() for name in COLUMNS}
        for kind in draws[0]
    }


def line(row: dict[str, Any]) -> str:
    """One row on the terminal."""
    kinds = [" ".join([kind, *(f"{row[kind][name]['value']:.1f}" for name in COLUMNS)]) for kind in REJECTERS]
    return f"{row['set']:14} {row['shots']:2} shots  ({', '.join(COLUMNS)})  {'  '.join(kinds)}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    sys.exit(main())
