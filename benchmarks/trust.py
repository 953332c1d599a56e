"""Whether the quoted number can be believed: does its 95 % interval hold this model's accuracy on items it never saw?

    python benchmarks/trust.py [--data FOLDER] [--draws 40] [--only SET …] [--kinds plain thrice stream]

Every draw takes K examples a class, fits `auto` on them, quotes its accuracy from nothing but them, and measures it on
all items that were not drawn, classes weighing as among the examples ("plain"). The same with every example given three
times, near-duplicates found by `near_duplicates` ("thrice"), and for a stream in which the classes are as frequent as
1, 1/2, 1/3, … in random order, its shares being given ("stream"). Plain draws also ask for a target precision: does its
interval hold the precision that is reached?

Rows of ``results/trust.json`` are replaced as they are run anew. Widths are beside those of Wilson's interval for as
many independent items as there are distinct examples (in a stream: as examples of unequal weight are worth).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import accuracy as sets
import numpy as np

from handful.adapt import head as make_head
from handful.adapt.base import Features
from handful.commands.sources import class_sentences
from handful.core.intervals import Estimate, clopper_pearson, equal_worth, mean_interval, wilson
from handful.encode import default_encoder
from handful.evaluate.duplicates import near_duplicates
from handful.evaluate.estimate import Quoted, estimate
from handful.evaluate.population import Population, population
from handful.evaluate.selective import selective
from handful.files import whole_file
from handful.read import ImageFile
from handful.ship.model import class_text_vectors

Kind = Literal["plain", "thrice", "stream"]
KINDS: tuple[Kind, ...] = ("plain", "thrice", "stream")
PRECISION = 0.9
"""Target precision."""


@dataclass(frozen=True)
class Set:
    """All items of one data set, where they come from not mattering, and vectors of its class names."""

    modality: Literal["text", "image"]
    items: list[Any]
    features: Features
    labels: np.ndarray
    vectors: Mapping[str, np.ndarray] | None
    logit_scale: float


@dataclass(frozen=True)
class Draw:
    """What was quoted, and what is true; ``binomial`` is how wide Wilson's interval would be."""

    quoted: Estimate
    truth: float
    binomial: float
    precision: Estimate | None
    reached: float | None

    @property
    def held(self) -> bool:
        """Whether the interval holds the truth."""
        return self.quoted.low <= self.truth <= self.quoted.high


def main() -> int:
    """Run what is asked for and bring the table up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "trust.json")
    options = parser.parse_args()
    for name, (load, shots) in SETS.items():
        if options.only and name not in options.only:
            continue
        data = load(options.data)
        for kind in options.kinds:
            start, draws = time.monotonic(), []
            for seed in range(options.first, options.first + options.draws):
                draws.append(one(data, shots, kind, seed))
            row = summary(name, shots, kind, draws) | {"seconds": round(time.monotonic() - start, 1)}
            print(line(row), flush=True)
            keep(options.out, row)
    return 0


def one(data: Set, shots: int, kind: Kind, seed: int) -> Draw:
    """Draw, fit, quote, measure."""
    learn, held = sets.draw(data.labels, shots, seed)
    rows = np.repeat(learn, 3) if kind == "thrice" else learn
    x, y = data.features.take(rows), data.labels[rows]
    groups = near_duplicates([data.items[i] for i in rows], x.x, data.modality) if kind == "thrice" else None
    x = replace(x, items=groups)
    head = make_head("auto", text=data.vectors, logit_scale=data.logit_scale, random_state=seed).fit(x, y)
    classes = [str(c) for c in head.classes_]
    mix = population(zipf(classes, seed) if kind == "stream" else "labels", classes, y)
    weights, shift = (mix.item_weights(y), mix.log_ratio(classes, y)) if kind == "stream" else (None, None)

    quoted = estimate(head, x, y, groups, seed=seed, weights=weights, shift=shift)
    assert quoted is not None  # every class has two shots
    items = len(learn) if weights is None else equal_worth(weights)
    binomial = wilson(quoted.accuracy.value * items, items)
    asked = data.features.take(held)
    logits = quoted.scale * head.spread(x, y) * np.asarray(head.logits(asked)) + (0 if shift is None else shift)
    right, true = logits.argmax(axis=1) == np.searchsorted(head.classes_, data.labels[held]), data.labels[held]
    truth = float(np.average(right, weights=mix.item_weights(true)))
    precision, reached = answered(quoted, y, logits, right, mix, true) if kind == "plain" else (None, None)
    return Draw(quoted.accuracy, truth, binomial.high - binomial.low, precision, reached)


def answered(
    quoted: Quoted, y: np.ndarray, logits: np.ndarray, right: np.ndarray, mix: Population, true: np.ndarray
) -> tuple[Estimate | None, float | None]:
    """The precision that is quoted for the target, and the one that is reached; ``None`` if there is no threshold."""
    codes, judged = np.unique(y, return_inverse=True)[1], quoted.judged
    chosen = selective(
        codes[judged],
        softmax(quoted.scale * quoted.logits[judged]),
        quoted.fold[judged],
        target=PRECISION,
        accuracy=quoted.accuracy,
    )
    if chosen.threshold is None:
        return None, None
    sure = softmax(logits).max(axis=1) >= chosen.threshold
    weight = mix.item_weights(true) * sure
    return chosen.precision, float(np.average(right, weights=weight)) if weight.any() else None


def zipf(classes: list[str], seed: int) -> dict[str, float]:
    """Shares as 1, 1/2, 1/3, … of the classes in random order."""
    share = 1 / np.arange(1, len(classes) + 1)
    order = np.random.default_rng(seed).permutation(len(classes))
    return {classes[c]: float(s) for c, s in zip(order, share / share.sum(), strict=True)}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities ``[n, C]``."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: np.ndarray = p / p.sum(axis=1, keepdims=True)
    return out


def summary(name: str, shots: int, kind: Kind, draws: list[Draw]) -> dict[str, Any]:
    """One row of the table: how often the truth was held, how wide, how far off; and the draws themselves."""
    values, truth = np.array([d.quoted.value for d in draws]), np.array([d.truth for d in draws])
    width = np.array([d.quoted.high - d.quoted.low for d in draws])
    sought = [d for d in draws if d.precision is not None and d.reached is not None]
    reached = [
        d.precision.low <= d.reached <= d.precision.high for d in sought if d.precision and d.reached is not None
    ]
    held = sum(d.held for d in draws)
    return {
        "set": name,
        "shots": shots,
        "kind": kind,
        "draws": len(draws),
        "held": held,
        "coverage": clopper_pearson(held, len(draws)).as_dict(),
        "gap": mean_interval(100 * (values - truth)).as_dict(),
        "truth": float(100 * truth.mean()),
        "width": float(width.mean() / np.mean([d.binomial for d in draws])),
        "points": float(100 * width.mean()),
        "precision": {"target": PRECISION, "thresholds": len(reached), "held": sum(reached)}
        if kind == "plain"
        else None,
        "each": [asdict(d) for d in draws],
    }


def line(row: dict[str, Any]) -> str:
    """One row on the terminal."""
    gap, precision = row["gap"], row["precision"]
    sure = "" if precision is None else f"  precision held {precision['held']} of {precision['thresholds']}"
    return (
        f"{row['set']:14} {row['shots']:2} shots  {row['kind']:7} held {row['held']:2} of {row['draws']}  "
        f"accuracy {row['truth']:.1f}  gap {gap['value']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]  "
        f"width {row['points']:.1f} = {row['width']:.2f} binomial{sure}  {row['seconds']:.0f} s"
    )


def keep(path: Path, row: dict[str, Any]) -> None:
    """Put a row into the table in place of an older one of the same set and kind."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = [old for old in rows if (old["set"], old["kind"]) != (row["set"], row["kind"])] + [row]
    names = list(SETS)
    rows.sort(key=lambda r: (names.index(r["set"]), KINDS.index(r["kind"])))
    with whole_file(path) as file:
        file.write(json.dumps({"rows": rows}, indent=1).encode())


# --- data ------------------------------------------------------------------------------------------------------------


def texts(*tables: tuple[list[str], list[str]]) -> Set:
    """A set of texts, each counted once."""
    pairs = dict.fromkeys(pair for table in tables for pair in zip(*table, strict=True))
    items, labels = (list(column) for column in zip(*pairs, strict=True))
    features = Features(default_encoder("text").encode(items), {})
    return made("text", items, features, np.asarray(labels))


def images(items: list[Any], labels: Sequence[str] | np.ndarray) -> Set:
    """A set of images."""
    arrays = default_encoder("image").encode(items, ("pooled", "middle", "aligned"))
    return made("image", items, Features(arrays.pop("pooled"), arrays), np.asarray(labels))


def made(modality: Literal["text", "image"], items: list[Any], features: Features, labels: np.ndarray) -> Set:
    """With the class names read as `fit` reads them."""
    tower = default_encoder(modality)
    names = class_sentences(None, sorted(set(labels)), tower.templates)
    vectors = class_text_vectors(tower, names) if names else None
    return Set(modality, items, features, labels, vectors, tower.logit_scale)


def banking(folder: Path) -> Set:
    """77 intents."""
    return texts(*(sets._table(folder / "banking77" / f"{part}.csv", ",") for part in ("train", "test")))


def few_shot_text(folder: Path, task: str) -> Set:
    """A task of LM-BFF's protocol, its splits and its test set together."""
    return texts(*(sets._table(file, "\t") for file in sorted((folder / "few-shot-text" / task).glob("*.tsv"))))


def zipped(folder: Path, name: str) -> Set:
    """A ZIP of images in folders; the class is the folder's name, or its path where names repeat."""
    with zipfile.ZipFile(folder / name) as archive:
        members = [m for m in archive.namelist() if m.lower().endswith((".jpg", ".png")) and "__MACOSX" not in m]
        items = [ImageFile(m, data=archive.read(m)) for m in members]
    paths = [m.rsplit("/", 1)[0] for m in members]
    last = {path: path.rsplit("/", 1)[-1] for path in paths}
    unique = len(set(last.values())) == len(last)
    return images(items, [last[path] if unique else path for path in paths])


def fashion(folder: Path) -> Set:
    """Clothing, as `accuracy` has it."""
    items, labels = sets.fashion_images(folder)
    return images(items, labels)


SETS: Mapping[str, tuple[Callable[[Path], Set], int]] = {
    "banking77": (banking, 8),
    "trec": (lambda folder: few_shot_text(folder, "trec"), 16),
    "agnews": (lambda folder: few_shot_text(folder, "agnews"), 8),
    "whu-rs19": (lambda folder: zipped(folder, "whu_rs19_224.zip"), 5),
    "omniglot": (lambda folder: zipped(folder, "omniglot/images_background_small1.zip"), 5),
    "cr": (lambda folder: few_shot_text(folder, "cr"), 8),
    "mr": (lambda folder: few_shot_text(folder, "mr"), 8),
    "subj": (lambda folder: few_shot_text(folder, "subj"), 8),
    "sst-2": (lambda folder: few_shot_text(folder, "sst-2"), 8),
    "fashion-mnist": (fashion, 5),
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    sys.exit(main())
