"""Every head on every data set: which to use when, and which do not help.

    python benchmarks/heads.py [--data FOLDER] [--only SET …] [--heads KEY …] [--episodes 61] [--seconds 2]

Episodes of `WAYS` classes (all there are, if fewer), 1, 5 and 16 shots, 15 queries a class (fewer where a class has not
so many). All heads see the same episodes, in order; a slow head sees the first ones only, as many as fit into
``--seconds`` of processor time, though never fewer than ``--fewest``. One that takes longer than ``--patience`` for a
single episode is left out, there and with more shots. Queries are balanced, or their class proportions are drawn from a
Dirichlet distribution of concentration 2, which is what transductive heads have to stand. Parameters are the defaults.
Heads that learn from base classes get `BASE_ITEMS` items of each class of another set of the same kind (`BASE`), and
all episodes at once, for what those teach is learnt once. Class names are used where a set has them; heads that can do
without (`NAMES_OR_NOT`) are also run so. A head that needs what these sets do not have is left out, with the reason.

The image sets were run with ``--episodes 31 --seconds 0.5 --fewest 7 --patience 1``: their features are wide.

Rows of ``results/heads.json`` that are there are not run again; ``--anew`` runs them. Intervals are Student's t over
episodes; ``gain`` is the paired difference to ``prototypes`` on the same episodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import accuracy as sets
import numpy as np
import trust

from handful.adapt import HEADS, head, head_class
from handful.core.intervals import mean_interval
from handful.encode import default_encoder
from handful.errors import HandfulError
from handful.evaluate.episodic import run
from handful.evaluate.indices import Episodes, places
from handful.evaluate.sampling import draw
from handful.files import whole_file

WAYS, QUERIES, SHOTS = 10, 15, (1, 5, 16)
FEWER_SHOTS = {"omniglot": (1, 5)}
"""Of sets with 20 items a class, which would leave few queries."""
CONCENTRATION = 2.0
BLOCK = 10
"""Episodes a head sees at a time."""
BASE = {
    "banking77": "trec",
    "trec": "banking77",
    "agnews": "banking77",
    "whu-rs19": "fashion-mnist",
    "omniglot": "whu-rs19",
    "fashion-mnist": "whu-rs19",
}
"""Where base classes come from."""
BASE_ITEMS = 20
"""Items of each."""
NAMES = {
    "trec": ("description", "entity", "abbreviation", "person", "location", "number"),
    "agnews": ("world politics", "sports", "business", "technology"),
}
"""What labels that are numbers stand for."""
PARAMETERS = {"pt-map": {"signed": True}, "cipa": {"power": None}}
"""For features that may be negative."""
REFERENCE = "prototypes"
NAMES_OR_NOT, PLAIN = ("auto", "gda"), " without names"
KEYS = [each for key in HEADS for each in ([key, key + PLAIN] if key in NAMES_OR_NOT else [key])]
ELSEWHERE = {
    "private-logistic": "what privacy costs is measured by itself",
    "private-search": "what privacy costs is measured by itself",
    "multi-label-logistic": "for items with several labels",
    "laso": "for items with several labels",
}
"""Heads that are for something else."""
Row = dict[str, Any]


def main() -> int:
    """Run what is not in the table yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--only", nargs="*", default=list(BASE), choices=list(BASE))
    parser.add_argument("--heads", nargs="*", default=[REFERENCE, *(key for key in KEYS if key != REFERENCE)])
    parser.add_argument("--episodes", type=int, default=61)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--fewest", type=int, default=11)
    parser.add_argument("--patience", type=float, default=6.0)
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "heads.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    if options.anew:
        rows = [row for row in rows if row["set"] not in options.only or row["head"] not in options.heads]
    loaded: dict[str, trust.Set] = {}
    for name in options.only:
        for which in (name, BASE[name]):
            if which not in loaded:
                loaded[which] = named(which, trust.SETS[which][0](options.data))
        data, base = with_places(loaded[name]), loaded[BASE[name]]
        for shots, imbalance in product(FEWER_SHOTS.get(name, SHOTS), (None, CONCENTRATION)):
            drawn = episodes(data, shots, imbalance, options.episodes)
            cell = {"set": name, "shots": shots, "imbalance": imbalance}
            done = {row["head"]: row for row in rows if all(row[key] == value for key, value in cell.items())}
            for key in options.heads:
                if drawn is None or key in done:
                    continue
                plain, slow = done.get(REFERENCE, {}).get("each"), slow_before(rows, key, name, shots)
                limits = options.seconds, options.patience, options.fewest
                row = cell | {"head": key, **(slow or measure(key, data, base, drawn, plain, *limits))}
                done[key] = row
                rows = [old for old in rows if not same(old, row)] + [row]
                print(line(row), flush=True)
            write(options.out, rows)
    return 0


def named(which: str, data: trust.Set) -> trust.Set:
    """The set with words for labels that are numbers."""
    if which not in NAMES:
        return data
    labels = np.array(NAMES[which])[data.labels.astype(int)]
    return trust.made(data.modality, data.items, data.features, labels)


def with_places(data: trust.Set) -> trust.Set:
    """With what each place of an image shows."""
    if data.modality == "text":
        return data
    local = default_encoder("image").encode(data.items, "local", cache=False)
    return replace(data, features=replace(data.features, views={**data.features.views, "local": local}))


def slow_before(rows: list[Row], key: str, name: str, shots: int) -> Row | None:
    """Why the head is left out, if it was too slow where classes of the set have no more shots."""
    for row in rows:
        if (row["head"], row["set"]) == (key, name) and row["shots"] <= shots and row.get("slow"):
            return {"missing": row["missing"]}
    return None


def episodes(data: trust.Set, shots: int, imbalance: float | None, count: int) -> Episodes | None:
    """The episodes of one cell; ``None`` where the smallest class has no more items than shots."""
    sizes = np.unique(data.labels, return_counts=True)[1]
    queries, ways = int(min(QUERIES, sizes.min() - shots)), min(WAYS, len(sizes))
    if queries < 1:
        return None
    return draw(data.labels, ways=ways, shots=shots, queries=queries, episodes=count, seed=0, imbalance=imbalance)


def measure(
    key: str,
    data: trust.Set,
    base: trust.Set,
    drawn: Episodes,
    plain: list[float] | None,
    seconds: float,
    patience: float,
    fewest: int,
) -> Row:
    """Accuracy of one head, or why there is none."""
    bare = key.removesuffix(PLAIN)
    if why := missing(bare, data):
        return {"missing": why}
    needs, text = head_class(bare).needs, data.vectors if key == bare else None
    parameters = PARAMETERS.get(bare, {}) if (data.features.x < 0).any() else {}
    background = some(base) if needs.background else None
    each, spent = [], 0.0
    try:
        for block in [drawn] if needs.background else blocks(drawn):
            if spent > patience and len(each) == 1:
                why = f"{spent:.0f} s an episode, if not more, are too many for this table"
                return {"missing": why, "slow": True}
            start = time.process_time()
            fresh = head(bare, logit_scale=data.logit_scale, **parameters)
            chunk = len(block) if needs.background else None
            found = run(fresh, data.features, data.labels, block, base=background, text=text, seed=0, chunk=chunk)
            spent += time.process_time() - start
            each += found.accuracy.tolist()
            if key != REFERENCE and len(each) >= fewest and spent * (1 + BLOCK / len(each)) > seconds:
                break
    except HandfulError as error:
        return {"missing": str(error)}
    gain = None if plain is None or key == REFERENCE else mean_interval(np.array(each) - plain[: len(each)])
    return {
        "episodes": len(each),
        "accuracy": mean_interval(np.array(each), within=(0.0, 1.0)).as_dict(),
        "gain": None if gain is None else gain.as_dict(),
        "seconds": spent / len(each),
        **({"each": each} if key == REFERENCE else {}),
    }


def some(base: trust.Set) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of `BASE_ITEMS` items of each class."""
    random = np.random.default_rng(0).random(len(base.labels))
    rows = places(np.unique(base.labels, return_inverse=True)[1], random) < BASE_ITEMS
    return base.features.x[rows], base.labels[rows]


def missing(key: str, data: trust.Set) -> str | None:
    """What the head needs and the set has not."""
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    needs = head_class(key).needs
    if needs.text and data.vectors is None:
        return "class names that say something"
    if needs.unlabelled:
        return "items without labels"
    absent = [view for view in needs.views if view not in data.features.views]
    return f"the view {absent[0]}" if absent else None


def blocks(drawn: Episodes) -> Iterator[Episodes]:
    """One episode, which tells how long they take, then `BLOCK` at a time."""
    yield drawn[:1]
    for first in range(1, len(drawn), BLOCK):
        yield drawn[first : first + BLOCK]


def same(a: Row, b: Row) -> bool:
    """Whether two rows are of one head and cell."""
    return all(a[key] == b[key] for key in ("set", "shots", "imbalance", "head"))


def line(row: Row) -> str:
    """One row on the terminal."""
    kind = "balanced" if row["imbalance"] is None else "imbalanced"
    start = f"{row['set']:13} {row['shots']:2} shots {kind:10} {row['head']:24}"
    if "missing" in row:
        return f"{start} - {row['missing']}"
    a = row["accuracy"]
    return (
        f"{start} {100 * a['value']:.1f} [{100 * a['low']:.1f}, {100 * a['high']:.1f}] "
        f"{row['episodes']} episodes, {row['seconds']:.3f} s each"
    )


def write(path: Path, rows: list[Row]) -> None:
    """The table, sorted, whole or not at all."""
    names, heads = list(BASE), KEYS
    rows.sort(key=lambda r: (names.index(r["set"]), r["shots"], r["imbalance"] or 0, heads.index(r["head"])))
    lines = ",\n".join(json.dumps(row) for row in rows)
    with whole_file(path) as file:
        file.write(f'{{"ways": {WAYS}, "queries": {QUERIES}, "rows": [\n{lines}\n]}}\n'.encode())


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.exit(main())
