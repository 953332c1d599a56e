"""Does prompting or tuning hold up better when a prompt is worded otherwise? (paper 080, Raja and Vats, Evaluating
Generalization and Representation Stability in Small LMs via Prompting, Fine-Tuning and Out-of-Distribution Prompts,
2025)

    prompt      k examples shown, written in one of the known templates
    tune        the same k examples learnt, written in all known templates, none shown
    drop        accuracy under known templates less that under others
    agreement   share of queries answered alike under two templates, the mean over pairs
    layers      how alike the last token's states are under two templates, and whether they cluster by what is meant
                or by how it is worded, before and after tuning
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from handful.adapt.parameters import count, several
from handful.core.train import AdamW
from handful.encode.hf import quiet
from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.in_context import answerer
from handful.evaluate.prompt_layers import stability, states_of
from handful.evaluate.prompt_pictures import write_pictures
from handful.evaluate.toy_tasks import ToyTask
from handful.evaluate.wording_shift import Shift, advised, shift, summary, written
from handful.pretrain.examples import Framing
from handful.pretrain.instruct import Instruct
from handful.protocols import Progress
from handful.tune.delta import attached
from handful.tune.tuned import Tuned

KNOWN = ("Input: {text}\nOutput:", "Text: {text}\nAnswer:")
OTHER = (
    "Q: {text}\nA:", "{text} =>", "Please answer the following.\n{text}\nResponse:",
    "What is the right answer to \"{text}\"? It is", "[answer wanted] {text} [answer]", "Inptu:  {text}\n\nOuptut :",
)  # fmt: skip
"""Another delimiter, instruction, question, order; and with errors of typing."""
Way = Literal["prompt", "tune"]


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        rows: by model, task, way and k: ``known``, ``other`` and ``drop`` with intervals over queries, ``worst`` and
            ``spread`` over templates, ``agreement``.
        layers: by model and ``"before"`` or ``"after"`` the rows of `stability`.
        states: the states they are of, with what each query is about.
        advice: a line a model.
    """

    rows: list[dict[str, Any]]
    layers: dict[tuple[str, str], list[dict[str, float]]]
    states: dict[tuple[str, str], torch.Tensor] = field(repr=False)
    meaning: tuple[str, ...]
    advice: dict[str, str]

    def table(self) -> str:
        """As Markdown."""
        head = "| model | task | way | k | known | other | drop | worst | spread | agreement |"
        lines = [head, "|" + "---|" * 10]
        for row in self.rows:
            drop = row["drop"]
            lines.append(
                f"| {row['model']} | {row['task']} | {row['way']} | {row['k']} | {row['known']['value']:.2f} "
                f"| {row['other']['value']:.2f} | {drop['value']:+.2f} [{drop['low']:+.2f}, {drop['high']:+.2f}] "
                f"| {row['worst']:.2f} | {row['spread']:.2f} | {row['agreement']:.2f} |"
            )
        return "\n".join([*lines, "", *self.advice.values(), ""])

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; ``None`` where a measure is not defined, such as of states that are all the same."""

        def plain(row: Mapping[str, float]) -> dict[str, float | None]:
            return {name: None if np.isnan(value) else value for name, value in row.items()}

        layers = [
            {"model": model, "when": when, "rows": [plain(row) for row in rows]}
            for (model, when), rows in self.layers.items()
        ]
        return {"rows": self.rows, "layers": layers, "advice": self.advice}

    def plot(self, folder: str | Path, seed: int = 0) -> list[Path]:
        """t-SNE of the first, middle and last layer of each model, before and after tuning, as SVG files."""
        return write_pictures(self.states, self.meaning, Path(folder), seed)


@dataclass
class PromptShiftAudit:
    """The audit (080).

    Args:
        models: causal ones by name; taken in the order of their size.
        tasks: such as `toy_tasks` makes.
        known: templates with ``{text}`` that examples are shown and learnt in.
        other: templates that nothing is learnt in.
        ks: numbers of examples.
        seeds: of the examples, their order and training.
        settings: of tuning; AdamW at 5e-5, three passes, answers alone.
        most: tokens of a written answer at most.
    """

    models: Mapping[str, LanguageModel]
    tasks: Sequence[ToyTask]
    known: Sequence[str] = KNOWN
    other: Sequence[str] = OTHER
    ks: Sequence[int] = (0, 1, 2, 4, 8, 16, 32)
    seeds: Sequence[int] = (0, 1, 2)
    settings: Instruct = field(
        default_factory=lambda: Instruct(
            lr=5e-5, batch=8, epochs=3, pack=False, update=lambda decay: AdamW(weight_decay=decay),
            framing=Framing(),
        )
    )  # fmt: skip
    most: int = 8

    def __post_init__(self) -> None:
        count("most", self.most, 1)
        for name in ("ks", "seeds"):
            for number in several(name, getattr(self, name), "a list of whole numbers"):
                count(f"each of {name}", number)
        if not isinstance(self.models, Mapping) or any(not isinstance(m, LanguageModel) for m in self.models.values()):
            raise BadInput("models are language models by name, such as {'gpt2': language_model('gpt2')}")
        for name in ("tasks", "known", "other"):
            several(name, getattr(self, name), "a list")
        if not self.models or not self.tasks or not self.ks or not self.seeds:
            raise BadInput("give at least one model, one task, one number of examples and one seed")
        for template in (*self.known, *self.other):
            if not isinstance(template, str) or template.count("{text}") != 1:
                raise BadInput(f"template {template!r} is no text with one place {{text}}")
        if len(self.known) < 1 or len(self.other) < 1:
            raise BadInput("give known templates and others: with one alone there is nothing to compare")
        every = [*self.known, *self.other]
        if twice := [one for one in every if every.count(one) > 1]:
            raise BadInput(f"template {twice[0]!r} stands there twice; known templates and others must differ")
        names = [task.name for task in self.tasks]
        if twice := [one for one in names if names.count(one) > 1]:
            raise BadInput(f"two tasks are called {twice[0]!r}; the table could not tell them apart")
        for task in self.tasks:
            if not task.queries:
                raise BadInput(f"task {task.name!r} has no queries to be answered")
            if max(self.ks) > len(task.pool):
                raise BadInput(f"{max(self.ks)} examples are asked for, but task {task.name!r} has {len(task.pool)}")
        for name, model in self.models.items():
            if model.kind != "causal":
                raise BadInput(f"{name!r} is {model.kind}; prompts with examples and their states are of causal models")
            self._refuse_long(name, model)

    def run(self, progress: Progress | None = None) -> AuditReport:
        """All models, tasks, ways and numbers of examples."""
        order = sorted(self.models, key=lambda name: sum(p.numel() for p in self.models[name].tower.parameters()))
        total = len(order) * len(self.tasks) * len(self.ks) * len(self.seeds)
        rows: list[dict[str, Any]] = []
        found: dict[tuple[str, str], list[list[Shift]]] = {}
        layers, states = {}, {}
        done = 0
        for name in order:
            model = self.models[name]
            for task in self.tasks:
                for k in self.ks:
                    ways: dict[Way, list[Shift]] = {"prompt": [], "tune": []}
                    for seed in self.seeds:
                        for way, one in self.compare(model, task, k, seed).items():
                            ways[way].append(one)
                        done += 1
                        if progress is not None:
                            progress(done, total)
                    for way, some in ways.items():
                        rows.append({"model": name, "task": task.name, "way": way, "k": k, **summary(some)})
                        if k == max(self.ks):
                            found.setdefault((name, way), []).append(some)
            for when, tuned in (("before", None), ("after", self.tuned_on_all(model))):
                states[name, when] = self.states(model, tuned)
                layers[name, when] = stability(states[name, when], self.meaning)
        advice = {name: advised(name, found[name, "prompt"], found[name, "tune"]) for name in order}
        return AuditReport(rows, layers, states, self.meaning, advice)

    def compare(self, model: LanguageModel, task: ToyTask, k: int, seed: int) -> dict[Way, Shift]:
        """Prompting with k examples, and tuning on the same k."""
        frame, shots = self._framing(model), self.drawn(task, k, seed)
        asked = answerer(model, None, frame, most=self.most, seed=seed)
        prompt = shift(asked, task, self.known, self.other, shots, seed % len(self.known))
        if k == 0:
            return {"prompt": prompt, "tune": prompt}
        learnt = [one for template in self.known for one in written(task, shots, template)]
        tuned = replace(self.settings, framing=frame).fit(model, learnt, seed=seed)
        answer = answerer(model, tuned, frame, most=self.most, seed=seed)
        return {"prompt": prompt, "tune": shift(answer, task, self.known, self.other)}

    def drawn(self, task: ToyTask, k: int, seed: int) -> list[tuple[str, str]]:
        """The k examples of a seed, in their order."""
        order = np.random.default_rng(seed).permutation(len(task.pool))
        return [task.pool[int(i)] for i in order[:k]]

    def tuned_on_all(self, model: LanguageModel) -> Tuned | None:
        """The model tuned on the most examples of all tasks together, of the first seed."""
        if max(self.ks) == 0:
            return None
        learnt = [
            one for task in self.tasks for template in self.known
            for one in written(task, self.drawn(task, max(self.ks), self.seeds[0]), template)
        ]  # fmt: skip
        return replace(self.settings, framing=self._framing(model)).fit(model, learnt, seed=self.seeds[0])

    @property
    def meaning(self) -> tuple[str, ...]:
        """What the queries of all tasks are about: their task, and their class where it has some."""
        return tuple(
            f"{task.name}: {answer}" if task.options else task.name for task in self.tasks for _, answer in task.queries
        )

    def states(self, model: LanguageModel, tuned: Tuned | None) -> torch.Tensor:
        """Of all queries of all tasks under every template, see `states_of`."""
        prompts = [
            [one.inputs for task in self.tasks for one in written(task, task.queries, template)]
            for template in (*self.known, *self.other)
        ]
        with attached(tuned.delta if tuned else None, model.tower):
            return states_of(model, prompts)

    def _framing(self, model: LanguageModel) -> Framing:
        """Nothing that fits into the model is cut, where a template's end would be lost; the rest was refused."""
        return replace(self.settings.framing, most_in=model.most)

    def _refuse_long(self, name: str, model: LanguageModel) -> None:
        """Refuse numbers of examples that do not fit into what the model reads."""

        def tokens(text: str) -> int:
            with quiet():
                return len(model.tokenizer.encode(text))

        wordiest = {task.name: max(task.queries, key=lambda pair: tokens(pair[0])) for task in self.tasks}

        def longest(k: int) -> int:
            prompts = {
                one.inputs
                for task in self.tasks for seed in self.seeds for template in (*self.known, *self.other)
                for one in written(
                    task, [wordiest[task.name]], template, self.drawn(task, k, seed),
                    self.known[seed % len(self.known)],
                )
            }  # fmt: skip
            answers = [answer for task in self.tasks for answer in task.options]
            return max(map(tokens, prompts)) + max([self.most, *map(tokens, answers)])

        too_many = [k for k in self.ks if longest(k) > model.most]
        if too_many:
            fits = next((k for k in range(min(too_many) - 1, -1, -1) if longest(k) <= model.most), None)
            hint = "none fit" if fits is None else f"at most {fits} fit"
            raise BadInput(f"{min(too_many)} examples do not fit into the {model.most} tokens {name!r} reads; {hint}")
