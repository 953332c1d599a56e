"""ComPEFT on what `handful fit --tune lora` learns: how much smaller, and what it costs in accuracy.

    python benchmarks/compeft.py [--data FOLDER] [--seeds 3] [--only NAME …]

Eight examples a class are learnt from, as in ``tuning.py``. Half of the numbers are kept, and alpha is chosen so that
answers on other texts, at most `CHOICE` and without labels, are nearest to those before (Kullback-Leibler divergence);
the factors of LoRA are compressed as they are, as the authors do, and balanced. Both are tested on items of the
official test set, at most `MOST`. Writes ``results/compeft.json`` after every fit and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from accuracy import SHARED, draw, folder
from tuning import FEW, MOST, SHOTS, Texts, banking, few

import handful
from handful.compress import balanced, choose, task_vector, with_vector
from handful.core.intervals import mean_interval
from handful.files import whole_file
from handful.ship.model import Model
from handful.tune.delta import Delta
from handful.tune.delta_file import delta_of
from handful.tune.encoders import as_file, tunable, tuned_encoder

HERE = Path(__file__).resolve().parent
CHOICE = 100
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 3.0)


def main() -> int:
    """Run what is not in the results yet and print a line a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "compeft.json")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    done = {(row["set"], row["seed"]) for row in rows}
    for name in (*FEW, "banking77-10"):
        if options.only and name not in options.only:
            continue
        learn, test = few(options.data, name) if name in FEW else banking(options.data)
        for seed in range(options.seeds):
            if (name, seed) not in done:
                rows.append({"set": name, "seed": seed, **one(learn, test, seed)})
                with whole_file(options.out) as file:
                    file.write(json.dumps({"shots": SHOTS, "most": MOST, "rows": rows}, indent=1).encode())
        mine = [row for row in rows if row["set"] == name]
        for how in ("plain", "balanced"):
            lost = mean_interval([row[how]["accuracy"] - row["tuned"] for row in mine])
            ratio = np.mean([row[how]["ratio"] for row in mine])
            print(
                f"{name:13} {how:9} {lost.value:+.2f} points [{lost.low:+.2f}, {lost.high:+.2f}], "
                f"{ratio:.1f} times smaller than in 16 bits",
                flush=True,
            )
    return 0


def one(learn: Texts, test: Texts, seed: int) -> dict[str, object]:
    """Accuracies in percent: of the frozen encoder, tuned, and compressed; how much smaller; what was chosen."""
    some, rest = draw(learn[1], SHOTS, seed)
    order = np.random.default_rng(seed).permutation(len(test[0]))[:MOST]
    held = [test[0][i] for i in order], test[1][order].astype(str)
    others = [learn[0][i] for i in np.random.default_rng(seed + 1).permutation(rest)[:CHOICE]]
    texts, labels = [learn[0][i] for i in some], [str(c) for c in learn[1][some]]
    frozen = handful.fit(texts, labels, cache=False, seed=seed)
    model = handful.fit(texts, labels, tune="lora", cache=False, seed=seed, time_limit=1.0)
    assert model.delta is not None
    base = handful.encoder("minilm")
    tower = tunable(base).tower()
    delta = delta_of(tower, *model.delta)
    found: dict[str, object] = {"frozen": right(frozen, *held), "tuned": right(model, *held)}
    before = model.predict_proba(others)

    def take(changed: Delta) -> None:
        model.tuned_by(as_file(changed), tuned_encoder(base, tower, changed))

    for how, start in (("plain", delta), ("balanced", balanced(delta, tower))):
        tau = task_vector(start, tower)

        def near(vector: torch.Tensor, start: Delta = start) -> float:
            take(with_vector(start, tower, vector))
            after = model.predict_proba(others)
            return float((before * np.log(after.clip(1e-12) / before.clip(1e-12))).sum(1).mean())

        best = choose(tau, near, (0.5,), SCALES)
        take(with_vector(start, tower, best.update.dense()))
        found[how] = {"accuracy": right(model, *held), "ratio": best.update.ratio, "alpha": best.best.alpha}
    return found


def right(model: Model, items: list[str], wanted: np.ndarray) -> float:
    """Accuracy in percent."""
    return 100 * float((np.array(model.predict(items)) == wanted).mean())


if __name__ == "__main__":
    sys.exit(main())
