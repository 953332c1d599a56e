"""How good `auto` is from a few labels, beside scikit-learn's logistic regression and the single heads.

    python benchmarks/accuracy.py [--data FOLDER] [--seeds 20] [--only NAME …]

Every draw takes K examples a class; all methods learn from the same ones, on the same features, and are tested on the
same items: the official test set where there is one, else all items not drawn. Class names are used where a set has
them. Writes ``results/accuracy.json``; intervals are Student's t over draws.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from handful.adapt import head as make_head
from handful.adapt.base import Features
from handful.commands.sources import class_sentences
from handful.core.intervals import mean_interval
from handful.encode import default_encoder
from handful.evaluate.indices import places
from handful.files import whole_file
from handful.read import ImageFile
from handful.ship.model import class_text_vectors

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
HEADS = ("prototypes", "matching-networks", "rfs", "gda", "kernel-ridge", "logistic")
WITH_NAMES = ("zero-shot", "tip-adapter", "tip-adapter-f", "proker", "gda")
PLAIN = "scikit-learn"
MOST = 3080  # test items a draw


@dataclass(frozen=True)
class Set:
    """One data set: features and labels, a test set of its own or none, and words for its classes."""

    modality: str
    features: Features
    labels: np.ndarray
    test: tuple[Features, np.ndarray] | None
    shots: tuple[int, ...]
    names: Mapping[str, list[str]]


def folder(text: str) -> Path:
    """The folder that ``--data`` names; the parser shows what is wrong with it."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no data in {text}")
    return Path(text)


def main() -> int:
    """Run all sets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--all-heads", action="store_true", help="also the single heads, for the regret of auto")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "accuracy.json")
    options = parser.parse_args()
    rows = []
    for name, load in SETS.items():
        if options.only and name not in options.only:
            continue
        data = load(options.data)
        for shots in data.shots:
            rows.append(one(name, data, shots, options.seeds, options.all_heads))
            print(line(rows[-1]), flush=True)
    text = json.dumps({"seeds": options.seeds, "rows": rows}, indent=1)
    with whole_file(options.out) as file:
        file.write(text.encode())
    return 0


def one(name: str, data: Set, shots: int, seeds: int, all_heads: bool) -> dict[str, object]:
    """Accuracy of every method in every draw, in percent."""
    tower = default_encoder(data.modality)
    vectors = class_text_vectors(tower, data.names) if data.names else None
    single: list[tuple[str, bool]] = [(key, False) for key in HEADS] if all_heads else []
    if vectors is not None and all_heads:
        single += [(key, True) for key in WITH_NAMES]
    hits: dict[str, list[float]] = {}
    for seed in range(seeds):
        learn, held = draw(data.labels, shots, seed)
        x, y = data.features.take(learn), data.labels[learn]
        if data.test is None:
            rest = np.random.default_rng(seed).permutation(held)[:MOST]
            test = data.features.take(rest), data.labels[rest]
        else:
            test = data.test
        for key, named in [("auto", vectors is not None), *single]:
            head = make_head(key, text=vectors if named else None, logit_scale=tower.logit_scale, random_state=seed)
            found = head.fit(x, y).predict(test[0])
            hits.setdefault(f"{key}+names" if named and key != "auto" else key, []).append(
                100 * (found == test[1]).mean()
            )
        plain = LogisticRegression(max_iter=2000).fit(x.x, y).predict(test[0].x)
        hits.setdefault(PLAIN, []).append(100 * (plain == test[1]).mean())
    accuracy = {key: mean_interval(values).as_dict() for key, values in hits.items()}
    gain = mean_interval(np.subtract(hits["auto"], hits[PLAIN])).as_dict()
    others = [np.mean(values) for key, values in hits.items() if key not in ("auto", PLAIN)]
    regret = float(max(others) - np.mean(hits["auto"])) if others else None
    return {"set": name, "shots": shots, "accuracy": accuracy, "gain": gain, "regret": regret}


def line(row: dict) -> str:
    """One row of the table on the terminal."""
    a, p, g = row["accuracy"]["auto"], row["accuracy"][PLAIN], row["gain"]
    heads = {k: round(v["value"], 1) for k, v in row["accuracy"].items() if k not in ("auto", PLAIN)}
    regret = "" if row["regret"] is None else f"  regret {row['regret']:+.2f}  {heads}"
    return (
        f"{row['set']:12} {row['shots']:2} shots  auto {a['value']:.1f} [{a['low']:.1f}, {a['high']:.1f}]  "
        f"{PLAIN} {p['value']:.1f}  gain {g['value']:+.2f} [{g['low']:+.2f}, {g['high']:+.2f}]{regret}"
    )


def draw(labels: np.ndarray, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of ``shots`` items of every class, and of all others."""
    random = np.random.default_rng(seed).random(len(labels))
    taken = places(np.unique(labels, return_inverse=True)[1], random) < shots
    return np.flatnonzero(taken), np.flatnonzero(~taken)


def banking(folder: Path) -> Set:
    """77 intents with a test set of its own."""
    parts = [_table(folder / "banking77" / f"{part}.csv", ",") for part in ("train", "test")]
    return _texts(*parts, shots=(1, 3, 8))


def renamed(folder: Path, how: str) -> Set:
    """Banking77 with names that mean nothing: codes, or those of other classes."""
    data = banking(folder)
    classes = sorted(data.names)
    if how == "codes":
        return Set(data.modality, data.features, data.labels, data.test, data.shots, {})
    order = np.random.default_rng(0).permutation(len(classes))
    names = {c: data.names[classes[o]] for c, o in zip(classes, order, strict=True)}
    return Set(data.modality, data.features, data.labels, data.test, data.shots, names)


def few_shot_text(folder: Path, task: str) -> Set:
    """A task of LM-BFF's protocol; its labels are numbers, so there are no names."""
    files = sorted((folder / "few-shot-text" / task).glob("*.tsv"))
    pool = dict.fromkeys(
        row for file in files if file.name != "test.tsv" for row in zip(*_table(file, "\t"), strict=True)
    )
    texts, labels = zip(*pool, strict=True)
    return _texts(
        (list(texts), list(labels)), _table(folder / "few-shot-text" / task / "test.tsv", "\t"), shots=(1, 8, 16)
    )


def zipped(folder: Path, name: str, shots: tuple[int, ...]) -> Set:
    """A ZIP of images in folders, the class being the whole path of the folder."""
    path = folder / name
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.namelist() if m.lower().endswith((".jpg", ".png")) and "__MACOSX" not in m]
        items = [ImageFile(m, data=archive.read(m)) for m in members]
    folders = [m.rsplit("/", 1)[0] for m in members]
    words = [
        f.rsplit("/", 1)[-1] if len({f.rsplit("/", 1)[-1] for f in folders}) == len(set(folders)) else f
        for f in folders
    ]
    return _images(items, np.asarray(words), shots)


def fashion(folder: Path) -> Set:
    """Clothing, 10 classes, 28 x 28 pixels; the first 4,000."""
    return _images(*fashion_images(folder), (1, 5, 16))


def fashion_images(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Its images and labels."""
    import gzip

    names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    files = {p.name: p for p in (folder / "fashion_mnist").iterdir()}
    pixels = np.frombuffer(gzip.decompress(next(p for n, p in files.items() if "images" in n).read_bytes()), np.uint8)
    labels = np.frombuffer(gzip.decompress(next(p for n, p in files.items() if "labels" in n).read_bytes()), np.uint8)
    return list(pixels[16:].reshape(-1, 28, 28)[:4000]), np.asarray(names)[labels[8:][:4000]]


def _table(path: Path, separator: str) -> tuple[list[str], list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        head, *rows = csv.reader(file, delimiter=separator, quoting=quoting)
    text = next(i for i, column in enumerate(head) if column in ("text", "sentence"))
    label = next(i for i, column in enumerate(head) if column in ("label", "category"))
    rows = [row for row in rows if row[text].strip()]
    return [row[text] for row in rows], [row[label] for row in rows]


def _texts(train: tuple[list[str], list[str]], test: tuple[list[str], list[str]], shots: tuple[int, ...]) -> Set:
    tower = default_encoder("text")
    x, q = (Features(tower.encode(part[0]), {}) for part in (train, test))
    chosen = np.sort(np.random.default_rng(0).permutation(len(q))[:MOST])
    labels = np.asarray(train[1])
    names = class_sentences(None, sorted(set(train[1])), tower.templates)
    return Set("text", x, labels, (q.take(chosen), np.asarray(test[1])[chosen]), shots, names)


def _images(items: list, labels: np.ndarray, shots: tuple[int, ...]) -> Set:
    tower = default_encoder("image")
    arrays = tower.encode(items, ("pooled", "middle", "aligned"))
    x = Features(arrays.pop("pooled"), arrays)
    return Set("image", x, labels, None, shots, class_sentences(None, sorted(set(labels)), tower.templates))


SETS: Mapping[str, Callable[[Path], Set]] = {
    "banking77": banking,
    "banking77-codes": lambda folder: renamed(folder, "codes"),
    "banking77-permuted": lambda folder: renamed(folder, "permuted"),
    **{task: (lambda folder, task=task: few_shot_text(folder, task)) for task in
       ("trec", "agnews", "sst-2", "sst-5", "cr", "mr", "subj")},
    "whu-rs19": lambda folder: zipped(folder, "whu_rs19_224.zip", (1, 5, 16)),
    "omniglot": lambda folder: zipped(folder, "omniglot/images_background_small1.zip", (1, 5)),
    "fashion-mnist": fashion,
}  # fmt: skip

if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
    sys.exit(main())
