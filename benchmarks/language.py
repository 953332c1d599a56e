"""Small language models on a processor: prompting against tuning, and how many examples a start needs.

    python benchmarks/language.py audit [--tasks sentiment …] [--ks 0 4 16] [--queries 16] [--seeds 1]
    python benchmarks/language.py quick [--data FOLDER] [--sets sst-2 …] [--sizes 4 16] [--test 24] [--starts …]

Both need `smollm2`. ``audit`` is paper 080 on tasks made by a program: SmolLM2-135M-Instruct, low-rank changes at 5e-4.
``quick`` is paper 178 on texts to classify: how many examples are needed by the instruction-tuned model whose inputs
come with a definition and two examples (``instructions``), by the same model of input and output alone (``plain``),
by the same network of random weights (``blank``), and by MiniLM with the head that `handful.fit` takes
(``sentence encoder``, which knows the classes it may answer). All learn from the same rows; an answer counts that is
the wanted word.

Writes ``results/language-audit.json`` and, after every curve, ``results/language-quick.json``, from which it goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accuracy import SHARED, folder

import handful
from handful.core.train import AdamW
from handful.encode.lm import LanguageModel, language_model
from handful.evaluate.prompt_shift import PromptShiftAudit
from handful.evaluate.quick import sample_efficiency
from handful.evaluate.toy_tasks import toy_tasks
from handful.files import whole_file
from handful.pretrain.examples import Example, Framing
from handful.pretrain.instruct import Instruct
from handful.pretrain.quick import InstructionFormat, QuickTask, make_budgets, quick_task
from handful.pretrain.self_supervised import low_rank

HERE = Path(__file__).resolve().parent
LEARNS = Instruct(
    lr=5e-4, batch=8, epochs=3, pack=False, update=lambda decay: AdamW(weight_decay=decay), changes=low_rank,
    framing=Framing(most_in=512, most_out=16),
)  # fmt: skip
ENCODER, FORM = "sentence encoder", InstructionFormat()
STARTS = ("instructions", "plain", "blank", ENCODER)
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
    parser.add_argument("--sets", nargs="*", choices=tuple(WORDS), default=("sst-2", "trec", "subj"))
    parser.add_argument("--sizes", nargs="*", default=("4", "16"))
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=STARTS)
    parser.add_argument("--test", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = audit(language_model("smollm2"), options) if options.what == "audit" else quick(options)
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


def quick(options: argparse.Namespace) -> dict[str, object]:
    """Paper 178: rows of what is there already and what is run now, and the curves over all sets."""
    out = HERE / "results" / "language-quick.json"
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    sizes = [int(size) if size.isdigit() else size for size in options.sizes]
    done = {(row["set"], row["start"]) for row in rows}
    for name in options.sets:
        for start in options.starts:
            if (name, start) in done:
                continue
            began = time.process_time()
            if start == ENCODER:
                scores = by_encoder(few(options.data, name, options.test, start), sizes)
            else:
                task, model = few(options.data, name, options.test, start), started(start == "blank")
                found = sample_efficiency({start: model}, [task], sizes, measure="exact", settings=LEARNS, most=4)
                scores = [float(found[start].zero[0]), *found[start].scores[:, 0].tolist()]
            rows.append(
                {"set": name, "start": start, "test": options.test, "seconds": time.process_time() - began}
                | {"scores": dict(zip(("0", *map(str, sizes)), scores, strict=True))}
            )
            print(rows[-1], flush=True)
            with whole_file(out) as file:
                file.write(json.dumps({"rows": rows}, indent=1).encode())
    return {"rows": rows}


@cache
def started(blank: bool) -> LanguageModel:
    """The model as it comes, or the same network of random weights."""
    model = language_model("smollm2")
    if blank:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.tower.body.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.02, generator=generator)
    return model


def by_encoder(task: QuickTask, sizes: list[int | str]) -> list[float]:
    """Share of right answers of `handful.fit`, by size; none without examples, as it does not know the classes."""

    def plain(some: tuple[Example, ...]) -> tuple[list[str], list[str]]:
        texts = [one.inputs.removeprefix("input: ").removesuffix("\noutput: ") for one in some]
        return texts, [one.targets for one in some]

    asked, wanted = plain(task.test)
    scores = [0.0]
    for learnt in make_budgets(task.train, sizes).values():
        texts, labels = plain(learnt)
        said = handful.fit(texts, labels, cache=False).predict(asked)
        scores.append(float(np.mean(np.array(said) == np.array(wanted))))
    return scores


def few(data: Path, name: str, test: int, start: str) -> QuickTask:
    """A set of texts with its 16-shot examples, as a task: two of them in the instruction, the rest to learn from."""
    rng = np.random.default_rng(0)

    def rows(file: str) -> list[tuple[str, list[str]]]:
        with (data / "few-shot-text" / name / file).open(encoding="utf-8", newline="") as lines:
            read = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        kept = [
            (row[0], [WORDS[name][int(row[1])]])
            for row in read
            if len(row) == 2 and row[0].strip() and row[1].isdigit()
        ]
        return [kept[i] for i in rng.permutation(len(kept))]  # the files go class by class

    learnt, tested = rows("train-16-13.tsv"), rows("test.tsv")
    shown = list({words[0]: (text, words[0]) for text, words in learnt}.values())[:2]  # of two classes
    rest = [(text, words) for text, words in learnt if (text, words[0]) not in shown]
    form = InstructionFormat(DEFINITIONS[name], tuple(shown)) if start in ("instructions", "blank") else FORM
    task = quick_task(name, [*tested[:100], *tested[100:110], *rest], form)
    return replace(task, test=task.test[:test])


if __name__ == "__main__":
    raise SystemExit(main())
