"""Small language models on a processor: prompting against tuning, and how many examples a start needs.

    python benchmarks/language.py audit [--tasks sentiment …] [--ks 0 4 16] [--queries 16] [--seeds 1]
    python benchmarks/language.py quick [--data FOLDER] [--sets sst-2 trec] [--sizes 10 100] [--test 50]

Both need `smollm2`. ``audit`` is paper 080 on tasks made by a program: SmolLM2-135M-Instruct, low-rank changes at 5e-4.
``quick`` is paper 178 on texts to classify, written as instructions with a definition and two examples: the tuned model
against the same network of random weights. Writes ``results/language-audit.json`` and ``results/language-quick.json``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import torch
from accuracy import SHARED, folder

from handful.core.train import AdamW
from handful.encode.lm import LanguageModel, language_model
from handful.evaluate.prompt_shift import PromptShiftAudit
from handful.evaluate.quick import sample_efficiency, saving
from handful.evaluate.toy_tasks import toy_tasks
from handful.files import whole_file
from handful.pretrain.examples import Framing
from handful.pretrain.instruct import Instruct
from handful.pretrain.quick import InstructionFormat, QuickTask, quick_task
from handful.pretrain.self_supervised import low_rank

HERE = Path(__file__).resolve().parent
LEARNS = Instruct(
    lr=5e-4, batch=8, epochs=3, pack=False, update=lambda decay: AdamW(weight_decay=decay), changes=low_rank,
    framing=Framing(most_in=512, most_out=16),
)  # fmt: skip
DEFINITIONS = {
    "sst-2": "Say whether the sentence speaks well or badly of a film: great or terrible.",
    "cr": "Say whether the customer speaks well or badly of the product: great or terrible.",
    "subj": "Say whether the sentence tells an opinion or a fact: subjective or objective.",
    "trec": "Say what the question asks for: description, entity, expression, human, location or number.",
    "agnews": "Say what the news are about: world, sports, business or technology.",
}
WORDS = {
    "sst-2": ("terrible", "great"), "cr": ("terrible", "great"), "subj": ("subjective", "objective"),
    "trec": ("description", "entity", "expression", "human", "location", "number"),
    "agnews": ("world", "sports", "business", "technology"),
}  # fmt: skip


def main() -> int:
    """Run one of the two and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("audit", "quick"))
    parser.add_argument("--tasks", nargs="*", default=("sentiment", "arithmetic", "plural", "grammar"))
    parser.add_argument("--ks", nargs="*", type=int, default=(0, 4, 16))
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", type=folder, default=str(SHARED))
    parser.add_argument("--sets", nargs="*", default=("sst-2", "trec"))
    parser.add_argument("--sizes", nargs="*", default=("10", "all"))
    parser.add_argument("--test", type=int, default=50)
    options = parser.parse_args()
    model = language_model("smollm2")
    found = audit(model, options) if options.what == "audit" else quick(model, options)
    with whole_file(HERE / "results" / f"language-{options.what}.json") as file:
        file.write(json.dumps(found, indent=1).encode())
    return 0


def audit(model: LanguageModel, options: argparse.Namespace) -> dict[str, object]:
    """Paper 080."""
    tasks = [task for task in toy_tasks(max(*options.ks, 1), options.queries) if task.name in options.tasks]
    made = PromptShiftAudit(
        {"smollm2": model}, tasks, ks=tuple(options.ks), seeds=tuple(range(options.seeds)), settings=LEARNS
    )
    report = made.run(lambda done, total: print(f"{done} of {total}", flush=True))
    print(report.table())
    return report.as_dict()


def quick(model: LanguageModel, options: argparse.Namespace) -> dict[str, object]:
    """Paper 178."""
    blank = LanguageModel(copy.deepcopy(model.tower.body), model.tokenizer, "causal", "blank")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in blank.tower.body.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02, generator=generator)
    tasks = [few(options.data, name, options.test) for name in options.sets]
    sizes = [int(size) if size.isdigit() else size for size in options.sizes]
    curves = sample_efficiency(
        {"tuned": model, "blank": blank}, tasks, sizes, measure="exact", settings=LEARNS, most=4,
        progress=lambda done, total: print(f"{done} of {total}", flush=True),
    )  # fmt: skip
    rows = [row for curve in curves.values() for row in curve.table()]
    for row in rows:
        print(row)
    best = float(curves["blank"].scores.mean(1).max())
    met = saving(curves["tuned"], curves["blank"], best)
    return {"rows": rows, "best_of_blank": best, "tuned_needs": met.first, "blank_needs": met.second}


def few(data: Path, name: str, test: int) -> QuickTask:
    """A set of texts with its 16-shot examples, as a task: two of them in the instruction, the rest to learn from."""

    def rows(file: str) -> list[tuple[str, list[str]]]:
        with (data / "few-shot-text" / name / file).open(encoding="utf-8", newline="") as lines:
            read = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        return [
            (row[0], [WORDS[name][int(row[1])]])
            for row in read
            if len(row) == 2 and row[0].strip() and row[1].isdigit()
        ]

    learnt, tested = rows("train-16-13.tsv"), rows("test.tsv")
    shown = tuple((text, words[0]) for text, words in learnt[::16][:2])
    form = InstructionFormat(DEFINITIONS[name], shown)
    task = quick_task(name, [*tested[:100], *tested[100:110], *learnt[1:]], form)
    return replace(task, test=task.test[:test])


if __name__ == "__main__":
    raise SystemExit(main())
