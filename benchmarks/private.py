"""What privacy costs: accuracy of the private head by shots and epsilon, and how well the membership attack does.

    python benchmarks/private.py [--data FOLDER] [--seeds 3] [--shots 5 10 …] [--models 32]

Fashion-MNIST on EfficientNet-Lite0 features, as `handful fit --private` learns, delta = 1/n, the median over seeds;
without privacy with the head's own parameters, which train longer. The noise comes from a seed so that the table can be
made again: the accuracies are those of the system's noise, the privacy is not. The attack (LiRA) is run on 10 shots a
class, each model learning from about half of them.

Writes ``results/private.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import accuracy as sets
import numpy as np

from handful.adapt.private import PrivateLogistic
from handful.commands.private import FIXED
from handful.evaluate.membership import dp_bound, lira_audit, shadow_heads
from handful.evaluate.price_of_privacy import shot_multipliers
from handful.files import whole_file

EPSILONS = (1.0, 2.0, 4.0, 8.0, None)
SET, ATTACKED = "fashion-mnist", 10


def main() -> int:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=sets.folder, default=str(sets.SHARED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", type=int, nargs="*", default=(5, 10, 25, 50, 100))
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--out", type=Path, default=sets.HERE / "results" / "private.json")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="not private")
    data = sets.SETS[SET](options.data)
    found: dict[float, dict[int, list[float]]] = {}
    rows: list[dict[str, Any]] = []
    for shots in options.shots:
        for epsilon in EPSILONS:
            start = time.monotonic()
            right = [one(data, shots, epsilon, seed) for seed in range(options.seeds)]
            found.setdefault(math.inf if epsilon is None else epsilon, {})[shots] = right
            row = {"shots": shots, "epsilon": epsilon, "accuracy": float(np.median(right)), "all": right}
            rows.append(row | {"seconds": round((time.monotonic() - start) / options.seeds, 1)})
            print(rows[-1], flush=True)
    base = [s for s in (5, 10) if s in options.shots]
    multipliers = {
        str(s0): {f"{e:g}": times for e, times in by.items()} for s0, by in shot_multipliers(found, base).items()
    }
    attacks = [attack(data, epsilon, options.models) for epsilon in (1.0, 8.0, None)] if options.models else []
    result = {"set": SET, "seeds": options.seeds, "rows": rows, "multipliers": multipliers, "attacks": attacks}
    with whole_file(options.out) as file:
        file.write(json.dumps(result, indent=1).encode())
    return 0


def parameters(epsilon: float | None) -> Mapping[str, Any]:
    """Of the head: those of the command, or without privacy its own, on all examples."""
    return {"batch_size": None} if epsilon is None else FIXED


def one(data: sets.Set, shots: int, epsilon: float | None, seed: int) -> float:
    """Accuracy of one fit on the items that were not drawn."""
    learn, held = sets.draw(data.labels, shots, seed)
    head = PrivateLogistic(epsilon=epsilon, noise="seeded", random_state=seed, **parameters(epsilon))
    head.fit(data.features.take(learn), data.labels[learn])
    return float((head.predict(data.features.take(held)) == data.labels[held]).mean())


def attack(data: sets.Set, epsilon: float | None, models: int) -> dict[str, Any]:
    """The membership attack on the head, and the most that privacy allows."""
    learn, _ = sets.draw(data.labels, ATTACKED, 0)
    delta = 2 / len(learn)  # the models learn from half of them
    head = PrivateLogistic(epsilon=epsilon, delta=delta, noise="seeded", random_state=0, **parameters(epsilon))
    report = lira_audit(shadow_heads(head), data.features.take(learn).x, data.labels[learn], models)
    bound = None if epsilon is None else {f"{r:g}": float(dp_bound(r, epsilon, delta)) for r in report.tpr}
    row = {"epsilon": epsilon, "delta": delta, "shots": ATTACKED, **report.as_dict(), "bound": bound}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
