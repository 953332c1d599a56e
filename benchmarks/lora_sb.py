"""LoRA-SB beside LoRA-XS at equal numbers of parameters (paper 148), on MiniLM and a few dozen texts a class.

    python benchmarks/lora_sb.py [--data FOLDER] [--seeds 5] [--sets trec …] [--rank 8] [--only LoRA-XS LoRA-SB rule]

Both change the same 24 maps (query, value and the second maps of attention and feed-forward) between two fixed bases,
by rank x rank numbers each; the bases are those of the first full step (LoRA-SB), or of the weight (LoRA-XS).
All else is the same: `SHOTS` texts a class, `STEPS` steps of 16, and class means as the readout, which learns along;
``frozen`` are those means before any change.

Each method has five settings. For each task the one with the highest accuracy is taken, on a draw of its own (seed
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
SHOTS, STEPS, CHOICE, HELD = 32, 60, 100, 250
Setting = tuple[float, float | None]
"""Rate, and length of the step that LoRA-SB starts at."""
SETTINGS: dict[str, list[Setting]] = {
    "LoRA-XS": [(5e-3, None), (2e-2, None), (5e-2, None), (1e-1, None), (2e-1, None)],
    "LoRA-SB": [(5e-3, 1e-4), (2e-2, 1e-4), (5e-2, 1e-4), (1e-1, 1e-4), (2e-2, 1e-5)],
    "rule": [(5e-4, None), (1e-3, None), (5e-3, None), (2e-2, None)],
}


def main() -> int:
    """Run what is not in the results yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--sets", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lora_sb.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rank = options.rank
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    done = {(row["set"], row["rank"], row["kind"], row["rate"], row["eta"], row["seed"]) for row in rows}
    sets = {name: few(options.data, name) for name in options.sets}

    def run(name: str, kind: str, setting: Setting, seed: int) -> None:
        if (name, rank, kind, *setting, seed) in done:
            return
        row = {"set": name, "rank": rank, "kind": kind, "rate": setting[0], "eta": setting[1], "seed": seed}
        found = one(*sets[name], recipe(rank, kind, *setting), seed)
        rows.append({**row, "choice": seed == CHOICE, **found})
        print(rows[-1], flush=True)
        with whole_file(options.out) as file:
            file.write(json.dumps({"shots": SHOTS, "rows": rows}, indent=1).encode())

    for name in options.sets:
        mine = (name, rank)
        for kind in options.only:
            for setting in SETTINGS[kind]:
                run(name, kind, setting, CHOICE)
            for seed in range(options.seeds):
                run(name, kind, chosen(rows, mine, kind), seed)
            print(line(rows, mine, kind), flush=True)
    return 0


def one(learn: Texts, test: Texts, made: Recipe, seed: int) -> dict[str, object]:
    """Accuracies in percent without a change and with it, the loss at the start and the end, and processor seconds."""
    some, rest = draw(learn[1], SHOTS, seed)
    random = np.random.default_rng(seed)
    asked, truth = (
        taken(learn, random.permutation(rest)[:HELD])
        if seed == CHOICE
        else taken(test, random.permutation(len(test[0]))[:MOST])
    )
    texts, labels = taken(learn, some)
    names, codes = np.unique(labels, return_inverse=True)
    base = tunable(handful.encoder("minilm"))
    tower, data = base.tower(), Data(base.inputs(texts), torch.tensor(codes), tuple(names))
    items = base.inputs(asked)
    began = time.process_time()
    tuned = tune(tower, data, made, seed=seed)
    seconds = time.process_time() - began
    plain = tune(tower, data, Recipe(readout=Prototypes, stages=(Stage(steps=0),)), seed=seed)
    right = [100 * float(np.mean(np.array(names)[m.logits(items).argmax(1).numpy()] == truth)) for m in (plain, tuned)]
    return {
        "frozen": right[0], "accuracy": right[1], "first": tuned.losses[0], "last": float(np.mean(tuned.losses[-10:])),
        "seconds": seconds, "learnt": tuned.delta.trainable(),
    }  # fmt: skip


def recipe(rank: int, kind: str, rate: float, eta: float | None) -> Recipe:
    """Of one method; only bases and rate differ."""
    stage = Stage(steps=STEPS, lr=rate, readout_lr=1e-3, batch=16, warmup=0.06, weight_decay=0.01)
    change = BRA(rank, basis="weight" if kind == "LoRA-XS" else "random")
    start = None if kind == "LoRA-XS" else FirstStep(stage, examples=50, eta=eta)
    where = Where(("q", "v", "o", "down"))
    return Recipe((Placed(change, where),), stages=(stage,), readout=Prototypes, start=start)


def chosen(rows: list[dict], mine: tuple[str, int], kind: str) -> Setting:
    """The setting with the highest accuracy on the draw for the choice; of equal ones that with the least loss."""
    tried = [row for row in rows if (row["set"], row["rank"], row["kind"], row["seed"]) == (*mine, kind, CHOICE)]
    best = max(tried, key=lambda row: (row["accuracy"], -row["last"]))
    return best["rate"], best["eta"]


def judged(rows: list[dict], mine: tuple[str, int], kind: str) -> dict[int, float]:
    """Accuracy by draw, at the setting that was chosen."""
    wanted = (*mine, kind, *chosen(rows, mine, kind))
    some = [row for row in rows if (row["set"], row["rank"], row["kind"], row["rate"], row["eta"]) == wanted]
    return {row["seed"]: row["accuracy"] for row in some if row["seed"] != CHOICE}


def line(rows: list[dict], mine: tuple[str, int], kind: str) -> str:
    """Mean with its interval over draws, and the difference to LoRA-XS, draws paired."""
    values, others = judged(rows, mine, kind), judged(rows, mine, "LoRA-XS")
    mean = mean_interval(list(values.values()))
    gain = mean_interval([value - others[seed] for seed, value in values.items() if seed in others])
    return (
        f"{mine[0]:13} {mine[1]:2} {kind:8} {mean.value:5.1f} [{mean.low:.1f}, {mean.high:.1f}]  beside LoRA-XS "
        f"{gain.value:+5.1f} [{gain.low:+.1f}, {gain.high:+.1f}]  rate {chosen(rows, mine, kind)[0]:g}"
    )


if __name__ == "__main__":
    sys.exit(main())
