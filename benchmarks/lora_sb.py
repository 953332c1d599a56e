"""LoRA-SB beside LoRA-XS at equal numbers of parameters (paper 148), on MiniLM and a few dozen texts a class.

    python benchmarks/lora_sb.py [--data FOLDER] [--seeds 5] [--sets trec cr] [--only LoRA-XS LoRA-SB rule]

Both change the same 24 maps (query, value and the second maps of attention and feed-forward) between two fixed bases,
by 8 x 8 numbers each, 1,536 in all; the bases are those of the first full step (LoRA-SB), or of the weight (LoRA-XS).
All else is the same: `SHOTS` texts a class, `STEPS` steps of 16, and class means as the readout, which learns along;
``frozen`` are those means before any change.

Each method has four settings. For each task the one with the highest accuracy is taken, on a draw of its own (seed
`CHOICE`) and texts that are neither learnt from nor in the test sets. Rates of LoRA-SB come with the length of
the step that it starts at; ``rule`` has that of the paper, the first rate of the warm-up, which is a hundred times
longer here than in a run of thousands of steps. Judged are other draws, on items of the official test sets, at most
`MOST`. Writes ``results/lora_sb.json`` after every fit and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accuracy import SHARED, draw, folder
from tuning import MOST, Texts, few, taken

import handful
from handful.core.intervals import mean_interval
from handful.files import whole_file
from handful.tune import BRA, Data, FirstStep, Placed, Recipe, Stage, Where, tune
from handful.tune.encoders import tunable
from handful.tune.fillers import Prototypes

HERE = Path(__file__).resolve().parent
TASKS = ("trec", "cr")
SHOTS, STEPS, RANK, CHOICE, HELD = 32, 60, 8, 100, 250
Setting = tuple[float, float | None]
"""Rate, and length of the step that LoRA-SB starts at."""
SETTINGS: dict[str, list[Setting]] = {
    "LoRA-XS": [(5e-3, None), (2e-2, None), (5e-2, None), (1e-1, None)],
    "LoRA-SB": [(5e-3, 1e-4), (2e-2, 1e-4), (5e-2, 1e-4), (2e-2, 1e-5)],
    "rule": [(5e-4, None), (1e-3, None), (5e-3, None), (2e-2, None)],
}


def main() -> int:
    """Run what is not in the results yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--sets", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lora_sb.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    done = {(row["set"], row["kind"], row["rate"], row["eta"], row["seed"]) for row in rows}
    sets = {name: few(options.data, name) for name in options.sets}

    def run(name: str, kind: str, setting: Setting, seed: int) -> None:
        if (name, kind, *setting, seed) in done:
            return
        row = {"set": name, "kind": kind, "rate": setting[0], "eta": setting[1], "seed": seed, "choice": seed == CHOICE}
        rows.append({**row, **one(*sets[name], kind, setting, seed)})
        print(rows[-1], flush=True)
        with whole_file(options.out) as file:
            file.write(json.dumps({"shots": SHOTS, "steps": STEPS, "most": MOST, "rows": rows}, indent=1).encode())

    for name in options.sets:
        for kind in options.only:
            for setting in SETTINGS[kind]:
                run(name, kind, setting, CHOICE)
            for seed in range(options.seeds):
                run(name, kind, chosen(rows, name, kind), seed)
            print(line(rows, name, kind), flush=True)
    return 0


def one(learn: Texts, test: Texts, kind: str, setting: Setting, seed: int) -> dict[str, object]:
    """Accuracies in percent without a change and with it, the loss at the start and the end, and processor seconds."""
    some, rest = draw(learn[1], SHOTS, seed)
    of_test = np.random.default_rng(seed).permutation(len(test[0]))[:MOST]
    asked, truth = taken(learn, rest[:HELD]) if seed == CHOICE else taken(test, of_test)
    texts, labels = taken(learn, some)
    names, codes = np.unique(labels, return_inverse=True)
    base = tunable(handful.encoder("minilm"))
    tower, data = base.tower(), Data(base.inputs(texts), torch.tensor(codes), tuple(names))
    items = base.inputs(asked)
    began = time.process_time()
    tuned = tune(tower, data, recipe(kind, *setting), seed=seed)
    seconds = time.process_time() - began
    plain = tune(tower, data, Recipe(readout=Prototypes, stages=(Stage(steps=0),)), seed=seed)
    right = [100 * float(np.mean(np.array(names)[m.logits(items).argmax(1).numpy()] == truth)) for m in (plain, tuned)]
    return {
        "frozen": right[0], "accuracy": right[1], "first": tuned.losses[0], "last": float(np.mean(tuned.losses[-10:])),
        "seconds": seconds, "learnt": tuned.delta.trainable(),
    }  # fmt: skip


def recipe(kind: str, rate: float, eta: float | None) -> Recipe:
    """Of one method; only bases and rate differ."""
    stage = Stage(steps=STEPS, lr=rate, readout_lr=1e-3, batch=16, warmup=0.06, weight_decay=0.01)
    change = BRA(RANK, basis="weight" if kind == "LoRA-XS" else "random")
    start = None if kind == "LoRA-XS" else FirstStep(stage, examples=50, eta=eta)
    where = Where(("q", "v", "o", "down"))
    return Recipe((Placed(change, where),), stages=(stage,), readout=Prototypes, start=start)


def chosen(rows: list[dict], name: str, kind: str) -> Setting:
    """The setting with the highest accuracy on the draw for the choice; of equal ones that with the least loss."""
    tried = [row for row in rows if (row["set"], row["kind"], row["seed"]) == (name, kind, CHOICE)]
    best = max(tried, key=lambda row: (row["accuracy"], -row["last"]))
    return best["rate"], best["eta"]


def judged(rows: list[dict], name: str, kind: str) -> dict[int, float]:
    """Accuracy by draw, at the setting that was chosen."""
    wanted = (name, kind, *chosen(rows, name, kind))
    mine = [row for row in rows if (row["set"], row["kind"], row["rate"], row["eta"]) == wanted]
    return {row["seed"]: row["accuracy"] for row in mine if row["seed"] != CHOICE}


def line(rows: list[dict], name: str, kind: str) -> str:
    """Mean with its interval over draws, and the difference to LoRA-XS, draws paired."""
    values, others = judged(rows, name, kind), judged(rows, name, "LoRA-XS")
    mean = mean_interval(list(values.values()))
    gain = mean_interval([value - others[seed] for seed, value in values.items() if seed in others])
    return (
        f"{name:13} {kind:8} {mean.value:5.1f} [{mean.low:.1f}, {mean.high:.1f}]  beside LoRA-XS {gain.value:+5.1f} "
        f"[{gain.low:+.1f}, {gain.high:+.1f}]  rate {chosen(rows, name, kind)[0]:g}"
    )


if __name__ == "__main__":
    sys.exit(main())
