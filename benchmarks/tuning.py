"""What tuning the encoder brings at eight shots: `handful.fit` with and without ``tune``, the same draws.

    python benchmarks/tuning.py [--data FOLDER] [--seeds 3] [--only NAME …] [--recipes none lora auto …]

Each draw takes eight examples a class; all recipes learn from the same ones and are tested on the same items of the
official test set, at most `MOST`. Named recipes are not judged (a time limit of a second), so that their seconds are
those of tuning once; ``auto`` is judged by its folds and chooses. Writes ``results/tuning.json`` after every fit and
goes on from there; intervals are Student's t over draws, gains are paired.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
from accuracy import SHARED, draw, folder

import handful
from handful.core.intervals import mean_interval
from handful.files import whole_file

HERE = Path(__file__).resolve().parent
FEW = ("cr", "sst-5", "agnews", "trec")
SPLITS = (13, 21, 42, 87, 100)
SHOTS, MOST, INTENTS = 8, 500, 10
Texts = tuple[list[str], np.ndarray]


def main() -> int:
    """Run what is not in the results yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--recipes", nargs="*", default=("none", "lora", "auto"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tuning.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows}
    for name in (*FEW, "banking77-10"):
        if options.only and name not in options.only:
            continue
        learn, test = few(options.data, name) if name in FEW else banking(options.data)
        for seed in range(options.seeds):
            for recipe in options.recipes:
                if (name, recipe, seed) not in done:
                    rows.append({"set": name, "recipe": recipe, "seed": seed, **one(learn, test, recipe, seed)})
                    with whole_file(options.out) as file:
                        file.write(json.dumps({"shots": SHOTS, "most": MOST, "rows": rows}, indent=1).encode())
        for recipe in options.recipes:
            print(line(rows, name, recipe), flush=True)
    return 0


def one(learn: Texts, test: Texts, recipe: str, seed: int) -> dict[str, object]:
    """Accuracy in percent, seconds, and whether the encoder was changed."""
    some, _ = draw(learn[1], SHOTS, seed)
    held = np.random.default_rng(seed).permutation(len(test[0]))[:MOST]
    texts, labels = [learn[0][i] for i in some], [str(c) for c in learn[1][some]]
    began = time.perf_counter()
    model = handful.fit(
        texts, labels, tune=None if recipe == "none" else recipe, cache=False, seed=seed,
        time_limit=None if recipe in ("none", "auto") else 1.0,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    right = np.array(model.predict([test[0][i] for i in held])) == test[1][held].astype(str)
    return {"accuracy": 100 * float(right.mean()), "seconds": seconds, "changed": model.delta is not None}


def line(rows: list[dict], name: str, recipe: str) -> str:
    """Mean and interval of a recipe, and its paired gain."""
    of = {(r["recipe"], r["seed"]): r for r in rows if r["set"] == name}
    mine = {seed: row for (key, seed), row in of.items() if key == recipe}
    values = mean_interval([row["accuracy"] for row in mine.values()])
    pairs = [row["accuracy"] - of["none", seed]["accuracy"] for seed, row in mine.items() if ("none", seed) in of]
    gain = mean_interval(pairs)
    seconds = float(np.median([row["seconds"] for row in mine.values()]))
    return (
        f"{name:13} {recipe:16} {values.value:5.1f} [{values.low:.1f}, {values.high:.1f}]  gain {gain.value:+5.1f} "
        f"[{gain.low:+.1f}, {gain.high:+.1f}]  {seconds:6.1f} s  changed {sum(r['changed'] for r in mine.values())}"
        f" of {len(mine)}"
    )


def few(data: Path, name: str) -> tuple[Texts, Texts]:
    """The 16-shot splits of all seeds together, each text once, and the test set."""
    parts = [table(data / "few-shot-text" / name / f"{p}-16-{s}.tsv") for s in SPLITS for p in ("train", "dev")]
    known: dict[str, str] = {}
    for text, label in (pair for part in parts for pair in part):
        known.setdefault(text, label)
    return pack(list(known.items())), pack(table(data / "few-shot-text" / name / "test.tsv"))


def banking(data: Path) -> tuple[Texts, Texts]:
    """Every eighth intent of Banking77, ten of them."""
    parts = []
    for part in ("train", "test"):
        with (data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            parts.append([(row["text"], row["category"]) for row in csv.DictReader(file)])
    chosen = set(sorted({label for _, label in parts[0]})[::8][:INTENTS])
    learn, test = (pack([pair for pair in part if pair[1] in chosen]) for part in parts)
    return learn, test


def table(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of a file whose cells are not quoted, blank ones left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    column = "sentence" if "sentence" in rows[0] else "text"
    return [(row[column], row["label"]) for row in rows if row[column].strip()]


def pack(pairs: list[tuple[str, str]]) -> Texts:
    """Texts and an array of labels."""
    return [text for text, _ in pairs], np.array([label for _, label in pairs])


if __name__ == "__main__":
    sys.exit(main())
