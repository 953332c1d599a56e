"""ComPEFT on what `handful fit --tune lora` learns: how much smaller, and what it costs in accuracy.

    python benchmarks/compeft.py [--data FOLDER] [--seeds 3] [--only NAME …]

Eight examples a class are learnt from, as in ``tuning.py``. The share that is kept and alpha are chosen for accuracy on
other examples, at most `CHOICE`; beside that stands what is done without examples to choose by. Both are tested on
items of the official test set, at most `MOST`. Writes ``results/compeft.json`` after every fit and goes on from there.
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
from handful.compress.compeft import ALPHAS, DENSITIES, choose, task_vector, with_vector
from handful.compress.ternary import Ternary
from handful.core.intervals import mean_interval
from handful.files import whole_file
from handful.ship.model import Model
from handful.tune.delta_file import delta_of
from handful.tune.encoders import as_file, tunable, tuned_encoder

HERE = Path(__file__).resolve().parent
CHOICE = 100


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
        lost = mean_interval([row["compressed"] - row["tuned"] for row in mine])
        ratios = ", ".join(f"{row['ratio']:.1f}" for row in mine)
        print(
            f"{name:13} {lost.value:+.2f} points [{lost.low:+.2f}, {lost.high:+.2f}], {ratios} times smaller",
            flush=True,
        )
    return 0


def one(learn: Texts, test: Texts, seed: int) -> dict[str, object]:
    """Accuracies in percent: of the frozen encoder, tuned, and compressed; how much smaller; what was chosen."""
    some, rest = draw(learn[1], SHOTS, seed)
    order = np.random.default_rng(seed).permutation(len(test[0]))[:MOST]
    held = [test[0][i] for i in order], test[1][order].astype(str)
    pick = np.random.default_rng(seed + 1).permutation(rest)[:CHOICE]
    chosen_by = [learn[0][i] for i in pick], learn[1][pick].astype(str)
    texts, labels = [learn[0][i] for i in some], [str(c) for c in learn[1][some]]
    frozen = handful.fit(texts, labels, cache=False, seed=seed)
    model = handful.fit(texts, labels, tune="lora", cache=False, seed=seed, time_limit=1.0)
    assert model.delta is not None
    base = handful.encoder("minilm")
    tower = tunable(base).tower()
    delta = delta_of(tower, *model.delta)
    tau = task_vector(delta, tower)
    found: dict[str, object] = {"frozen": right(frozen, *held), "tuned": right(model, *held), "numbers": len(tau)}

    def scored(vector: torch.Tensor, items: list[str], wanted: np.ndarray) -> float:
        changed = with_vector(delta, tower, vector)
        model.tuned_by(as_file(changed), tuned_encoder(base, tower, changed))
        return right(model, items, wanted)

    for name, densities, alphas in (("compressed", DENSITIES, ALPHAS), ("default", (0.2,), (1.0,))):
        best = choose(tau, lambda v: scored(v, *chosen_by), densities, alphas)
        update: Ternary = best.update
        suffix = "" if name == "compressed" else f"_{name}"
        found |= {
            name: scored(update.dense(), *held), f"ratio{suffix}": update.ratio,
            f"density{suffix}": best.best.density, f"alpha{suffix}": best.best.alpha,
        }  # fmt: skip
    return found


def right(model: Model, items: list[str], wanted: np.ndarray) -> float:
    """Accuracy in percent."""
    return 100 * float((np.array(model.predict(items)) == wanted).mean())


if __name__ == "__main__":
    sys.exit(main())
