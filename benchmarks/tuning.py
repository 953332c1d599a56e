"""What tuning the encoder brings at eight shots: `handful.fit` with and without ``tune``, and peers, the same draws.

    python benchmarks/tuning.py [--data FOLDER] [--seeds 3] [--only NAME …] [--recipes none lora auto SetFit …]
    pip install 'setfit==1.2.0' 'fast-fit==1.2.1' 'transformers<5'    # for SetFit and FastFit

Each draw takes eight examples a class; all recipes learn from the same ones and are tested on the same items of the
official test set, at most `MOST`. ``banking77-77`` has ten of each of all 77 intents and is tested on every item;
``cr-183-20`` has 183 good reviews and 20 bad ones, drawn from the test set, and is
tested on others in the same proportion. Named recipes are not judged (a time limit of a second), so that their seconds
are those of tuning once; ``auto`` is judged by its folds and chooses. SetFit runs as its authors' scripts do: 20
iterations of pairs, one epoch, logistic regression; FastFit see `against_fastfit`. Labels are words, as a user's are;
Handful and FastFit read them, SetFit does not.

Writes ``results/tuning.json`` after every fit and goes on from there; intervals are Student's t over draws, gains are
paired. The score is accuracy, where classes are uneven Matthews' correlation, both x 100. Seconds are the process's
processor time on one thread, which other work on the machine does not lengthen, of learning without answering.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import SHARED, draw, folder
from sklearn.metrics import accuracy_score, matthews_corrcoef

import handful
from handful.core.intervals import mean_interval
from handful.files import whole_file

HERE = Path(__file__).resolve().parent
FEW = ("cr", "sst-5", "agnews", "trec")
SPLITS = (13, 21, 42, 87, 100)
SHOTS, MOST, INTENTS = 8, 500, 10
MANY, MANY_SHOTS = "banking77-77", 10
UNEVEN, SIZES = "cr-183-20", {"negative": 20, "positive": 183}
NAMES = {
    "cr": ("negative", "positive"),
    "sst-5": ("very negative", "negative", "neutral", "positive", "very positive"),
    "agnews": ("world politics", "sports", "business", "technology"),
    "trec": ("description", "entity", "abbreviation", "person", "location", "number"),
}
"""What the labels 0, 1, 2 … of these sets stand for."""
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
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows}
    for name in (*FEW, "banking77-10", MANY, UNEVEN):
        if options.only and name not in options.only:
            continue
        for seed in range(options.seeds):
            for recipe in options.recipes:
                if (name, recipe, seed) not in done:
                    rows.append({"set": name, "recipe": recipe, "seed": seed, **one(options.data, name, recipe, seed)})
                    with whole_file(options.out) as file:
                        file.write(json.dumps({"shots": SHOTS, "most": MOST, "rows": rows}, indent=1).encode())
        for recipe in options.recipes:
            print(line(rows, name, recipe), flush=True)
    return 0


def one(data: Path, name: str, recipe: str, seed: int) -> dict[str, object]:
    """Score in percent, seconds, and whether the encoder was changed."""
    (texts, labels), (asked, truth) = drawn(data, name, seed)
    began = time.process_time()
    if recipe in PEERS:
        predict, changed = PEERS[recipe](texts, labels, seed), True
    else:
        model = handful.fit(
            texts, labels.tolist(), tune=None if recipe == "none" else recipe, cache=False, seed=seed,
            time_limit=None if recipe in ("none", "auto") else 1.0,
        )  # fmt: skip
        predict, changed = model.predict, model.delta is not None
    seconds = time.process_time() - began
    score = matthews_corrcoef if name == UNEVEN else accuracy_score
    return {"score": 100 * float(score(truth, np.array(predict(asked)))), "seconds": seconds, "changed": changed}


def setfit(texts: list[str], labels: np.ndarray, seed: int) -> Callable[[list[str]], Any]:
    """SetFit 1.2 taught the examples: what labels texts."""
    from against_setfit import learn

    classes, codes = np.unique(labels, return_inverse=True)
    model = learn(texts, codes.tolist(), seed, 20)
    return lambda asked: classes[np.asarray(model.predict(asked))]


def fastfit(texts: list[str], labels: np.ndarray, seed: int) -> Callable[[list[str]], Any]:
    """FastFit 1.2 taught the examples: what labels texts."""
    from against_fastfit import learn

    return learn(texts, labels.tolist(), seed)


PEERS = {"SetFit": setfit, "FastFit": fastfit}


def drawn(data: Path, name: str, seed: int) -> tuple[Texts, Texts]:
    """What is learnt from, and what is asked."""
    if name == MANY:
        learn, test = banking(data, 1, None)
        return taken(learn, draw(learn[1], MANY_SHOTS, seed)[0]), taken(test, np.arange(len(test[0])))
    learn, test = banking(data, 8, INTENTS) if name == "banking77-10" else few(data, name.removesuffix("-183-20"))
    if name == UNEVEN:
        return uneven(test, seed)
    some, _ = draw(learn[1], SHOTS, seed)
    return taken(learn, some), taken(test, np.random.default_rng(seed).permutation(len(test[0]))[:MOST])


def uneven(test: Texts, seed: int) -> tuple[Texts, Texts]:
    """`SIZES` of each class, and of the others as many as there are in that proportion."""
    learn, rest = [], []
    order = np.random.default_rng(seed).permutation(len(test[1]))
    most = min(int(np.sum(test[1] == name)) / size for name, size in SIZES.items()) - 1
    for name, size in SIZES.items():
        mine = order[test[1][order] == name]
        learn.append(mine[:size])
        rest.append(mine[size : size + int(most * size)])
    return taken(test, np.concatenate(learn)), taken(test, np.concatenate(rest))


def taken(texts: Texts, rows: np.ndarray) -> Texts:
    """Some of them."""
    return [texts[0][i] for i in rows], texts[1][rows].astype(str)


def line(rows: list[dict], name: str, recipe: str) -> str:
    """Mean and interval of a recipe, and its paired gain."""
    of = {(r["recipe"], r["seed"]): r for r in rows if r["set"] == name}
    mine = {seed: row for (key, seed), row in of.items() if key == recipe}
    values = mean_interval([row["score"] for row in mine.values()])
    pairs = [row["score"] - of["none", seed]["score"] for seed, row in mine.items() if ("none", seed) in of]
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
    test = table(data / "few-shot-text" / name / "test.tsv")
    return tuple(pack([(text, NAMES[name][int(code)]) for text, code in pairs]) for pairs in (known.items(), test))


def banking(data: Path, every: int, most: int | None) -> tuple[Texts, Texts]:
    """Every so-manieth intent of Banking77, at most so many of them."""
    parts = []
    for part in ("train", "test"):
        with (data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            parts.append([(row["text"], row["category"]) for row in csv.DictReader(file)])
    chosen = set(sorted({label for _, label in parts[0]})[::every][:most])
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
