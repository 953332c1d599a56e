"""`handful.fit` beside SetFit on ten classes of Banking77, eight examples each: accuracy and seconds, one warm process.

    pip install 'setfit==1.2.0' 'transformers<5'
    python benchmarks/against_setfit.py [--data FOLDER] [--seeds 5] [--iterations 20 | --default --cap SECONDS]

Both start from the same all-MiniLM-L6-v2, learn from the same examples and label the same 400 test items of the ten
classes. SetFit runs as its authors' scripts do, 20 iterations of pairs and one epoch; with ``--default`` as version 1.x
does by itself, one epoch of all pairs, its training stopped after ``--cap`` seconds. Handful's feature cache is off.
Writes ``results/setfit.json`` (``setfit_default.json``); the interval is Student's t over paired draws.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data"
CLASSES = 10
SHOTS = 8


def main() -> int:
    """Run all draws and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--cap", type=float, default=120.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    iterations = None if options.default else options.iterations
    out = options.out or HERE / "results" / ("setfit_default.json" if options.default else "setfit.json")
    if find_spec("setfit") is None:
        print("setfit is not installed: pip install 'setfit==1.2.0' 'transformers<5'", file=sys.stderr)
        return 2
    from handful.core.intervals import mean_interval
    from handful.files import whole_file

    train, test = (_table(options.data / "banking77" / f"{part}.csv") for part in ("train", "test"))
    _handful(*_draw(train, test, -1))  # both warm up: imports, weights, threads
    rows = []
    for seed in range(options.seeds):
        ours, ours_s = _handful(*_draw(train, test, seed))
        theirs, theirs_s = _setfit(
            *_draw(train, test, seed), seed, iterations, options.cap if options.default else None
        )
        rows.append({"handful": ours, "handful_s": ours_s, "setfit": theirs, "setfit_s": theirs_s})
        print(
            f"draw {seed}: handful {ours:.1f} % in {ours_s:.2f} s, SetFit {theirs:.1f} % in {theirs_s:.1f} s",
            flush=True,
        )
    gain = mean_interval([row["handful"] - row["setfit"] for row in rows])
    ratio = mean_interval([row["setfit_s"] / row["handful_s"] for row in rows])
    print(f"gain {gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}] points; {ratio.value:.0f} times as fast")
    settings = {"iterations": iterations, "cap_s": options.cap if options.default else None}
    result = {**settings, "rows": rows, "gain": gain.as_dict(), "ratio": ratio.as_dict()}
    with whole_file(out) as file:
        file.write(json.dumps(result, indent=1).encode())
    return 0


Texts = tuple[list[str], list[str]]


def _draw(train: Texts, test: Texts, seed: int) -> tuple[Texts, Texts]:
    """``SHOTS`` training items of each of ten classes, and all their test items."""
    draw = np.random.default_rng(seed + 1)
    classes = sorted(draw.permutation(sorted(set(train[1])))[:CLASSES])
    labels = np.asarray(train[1])
    learn = np.concatenate([draw.permutation(np.flatnonzero(labels == c))[:SHOTS] for c in classes])
    held = np.flatnonzero(np.isin(test[1], classes))
    return ([train[0][i] for i in learn], [train[1][i] for i in learn]), (
        [test[0][i] for i in held],
        [test[1][i] for i in held],
    )


def _handful(learn: Texts, held: Texts) -> tuple[float, float]:
    import handful

    start = time.perf_counter()
    found = handful.fit(*learn, cache=False).predict(held[0])
    seconds = time.perf_counter() - start
    return 100 * float(np.mean(np.asarray(found) == held[1])), seconds


def _setfit(learn_: Texts, held: Texts, seed: int, iterations: int | None, cap: float | None) -> tuple[float, float]:
    codes = {c: i for i, c in enumerate(sorted(set(learn_[1])))}
    start = time.perf_counter()
    found = np.asarray(learn(learn_[0], [codes[c] for c in learn_[1]], seed, iterations, cap).predict(held[0]))
    seconds = time.perf_counter() - start
    return 100 * float(np.mean(found == [codes[c] for c in held[1]])), seconds


def learn(texts: list[str], codes: list[int], seed: int, iterations: int | None, cap: float | None = None) -> Any:
    """A model of SetFit that was taught texts and the numbers of their classes; ``cap`` seconds at most."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression
    from transformers import TrainerCallback

    from handful.encode.weights import MINILM

    start = time.perf_counter()
    model = SetFitModel(model_body=SentenceTransformer(str(MINILM.path().parent)), model_head=LogisticRegression())
    arguments = TrainingArguments(
        batch_size=16, num_epochs=1, num_iterations=iterations, seed=seed, report_to="none", save_strategy="no",
        show_progress_bar=False,
    )  # fmt: skip

    class Cap(TrainerCallback):
        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            control.should_training_stop |= cap is not None and time.perf_counter() - start > cap

    data = Dataset.from_dict({"text": texts, "label": codes})
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Cap()]).train()
    return model


def _table(path: Path) -> Texts:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


if __name__ == "__main__":
    sys.exit(main())
