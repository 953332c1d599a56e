"""FewCLUE: nine Chinese tasks with five fixed splits each, read, scored and handed in.

Paper 066: Xu et al., "FewCLUE: A Chinese Few-shot Learning Evaluation Benchmark", 2021. For every task and split i a
method learns from ``train_i.json``, chooses by ``dev_i.json`` and is judged by accuracy on ``test_public.json``; then
once more on the union of the splits (``all``). The score of a task is the mean over the five, that of a method the mean
over tasks. The files are one JSON object a line, and no two tasks agree on their fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.errors import BadInput, nearest
from handful.files import whole_file

SPLITS = ("0", "1", "2", "3", "4")
ALL = "all"
HUMAN = 82.49
"""Score of people, in percent, as the benchmark's authors give it."""


class Item(NamedTuple):
    """One example: ``text``, a second text for pairs, its label (``None`` in a hidden test) and its id."""

    text: str
    other: str | None
    label: str | None
    id: Any


@dataclass(frozen=True)
class _Form:
    """How a task writes an example down."""

    label: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], tuple[str, str | None]]
    pair: bool = False


def _pair(row: Mapping[str, Any]) -> tuple[str, str | None]:
    return row["sentence1"], row["sentence2"]


def _idiom(row: Mapping[str, Any]) -> tuple[str, str | None]:
    return row["content"], "，".join(row["candidates"])


def _keywords(row: Mapping[str, Any]) -> tuple[str, str | None]:
    return row["abst"], "，".join(row["keyword"])


def _coreference(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The sentence with its two spans marked: the noun between underscores, the pronoun between brackets."""
    text, target = row["text"], row["target"]
    marks = [
        (target["span1_index"], target["span1_text"], "_{}_"),
        (target["span2_index"], target["span2_text"], "[{}]"),
    ]
    for start, span, mark in sorted(marks, key=lambda m: -m[0]):
        text = text[:start] + mark.format(span) + text[start + len(span) :]
    return text, None


TASKS: Mapping[str, _Form] = {
    "eprstmt": _Form(("label",), lambda row: (row["sentence"], None)),
    "csldcp": _Form(("label",), lambda row: (row["content"], None)),
    "tnews": _Form(("label_desc", "label_des"), lambda row: (row["sentence"], None)),
    "iflytek": _Form(("label_des", "label_desc"), lambda row: (row["sentence"], None)),
    "ocnli": _Form(("label",), _pair, True),
    "bustm": _Form(("label",), _pair, True),
    "chid": _Form(("answer",), _idiom, True),
    "csl": _Form(("label",), _keywords, True),
    "cluewsc": _Form(("label",), _coreference),
}
"""The nine tasks."""


@dataclass(frozen=True)
class FewShotTask:
    """One task.

    Attributes:
        name: see `TASKS`.
        splits: training and validation items by split, ``"0"`` to ``"4"`` and ``"all"``.
        test: the public test.
        hidden: the test without labels, empty where there is no such file.
        label_names: classes, sorted.
        pair: whether items are two texts.
    """

    name: str
    splits: Mapping[str, tuple[tuple[Item, ...], tuple[Item, ...]]]
    test: tuple[Item, ...]
    hidden: tuple[Item, ...]
    label_names: tuple[str, ...]
    pair: bool


def load_fewclue(root: str | Path, task: str) -> FewShotTask:
    """Read a task from ``root/task/train_0.json`` and its neighbours, as the benchmark's repository has them.

    Raises:
        BadInput: no such task, a split that is missing, a line or field that cannot be read, ids that come twice, a
            label that no training item has.
    """
    if task not in TASKS:
        raise BadInput(f"FewCLUE has no task {task!r}{nearest(task, TASKS)}")
    folder = Path(root) / task
    splits = {}
    for name in (*SPLITS, ALL):
        stem = "few_all" if name == ALL else name
        splits[name] = (_items(folder / f"train_{stem}.json", task), _items(folder / f"dev_{stem}.json", task))
    taught = {item.label for train, _ in splits.values() for item in train}
    test = _items(folder / "test_public.json", task)
    strange = next((i.label for i in test if i.label not in taught), None) if task != "chid" else None
    if strange is not None:
        raise BadInput(f"{folder / 'test_public.json'}: label {strange!r} is in no training split")
    hidden = folder / "test.json"
    found = _items(hidden, task, labelled=False) if hidden.is_file() else ()
    return FewShotTask(task, splits, test, found, tuple(sorted(str(c) for c in taught)), TASKS[task].pair)


def _items(path: Path, task: str, labelled: bool = True) -> tuple[Item, ...]:
    form, items, seen = TASKS[task], [], set()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts hold other line ends
    except OSError as error:
        raise BadInput(f"{path} cannot be read: FewCLUE has five splits and their union for every task") from error
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, other = form.read(row)
            label = next((str(row[name]) for name in form.label if name in row), None)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {i}: no example of {task} ({error})") from error
        if label == "-":  # the annotators of OCNLI did not agree
            continue
        if labelled and label is None:
            raise BadInput(f"{path}, line {i}: no {' or '.join(form.label)}; a file without labels cannot be scored")
        key = row.get("id")
        if not labelled and key is not None and key in seen:
            raise BadInput(f"{path}, line {i}: id {key!r} comes twice")
        seen.add(key)
        items.append(Item(str(text), other, label if labelled else None, i - 1 if key is None else key))
    return tuple(items)


def accuracy(items: Sequence[Item], predicted: Sequence[str]) -> float:
    """Share of right answers, in percent.

    Raises:
        BadInput: items without labels (write a submission instead), or another number of answers.
    """
    if len(items) != len(predicted) or not items:
        raise BadInput(f"{len(predicted)} answers to {len(items)} items")
    if any(item.label is None for item in items):
        raise BadInput("a hidden test has no labels to score against: write a submission instead")
    return 100 * float(np.mean([item.label == answer for item, answer in zip(items, predicted, strict=True)]))


@dataclass(frozen=True)
class TaskScore:
    """Accuracies in percent on the public test: of the splits, their mean and standard deviation, and of ``all``."""

    task: str
    splits: tuple[float, ...]
    mean: float
    deviation: float
    all: float


Method = Callable[[Sequence[Item], Sequence[Item], Sequence[Item]], Sequence[str]]
"""``method(train, dev, test) -> labels`` of the test items, whose own labels are hidden from it."""


def run_benchmark(
    method: Method, tasks: Iterable[FewShotTask], splits: Sequence[str] = SPLITS
) -> tuple[list[TaskScore], float]:
    """Score of a method on each task, and overall: the mean over tasks.

    Raises:
        BadInput: no tasks, or answers that do not fit.
    """
    scores = []
    for task in tasks:
        asked = [item._replace(label=None) for item in task.test]
        found = {name: accuracy(task.test, method(*task.splits[name], asked)) for name in (*splits, ALL)}
        each = tuple(found[name] for name in splits)
        spread = float(np.std(each, ddof=1)) if len(each) > 1 else 0.0
        scores.append(TaskScore(task.name, each, float(np.mean(each)), spread, found[ALL]))
    if not scores:
        raise BadInput(f"no tasks to run: {', '.join(TASKS)}")
    return scores, float(np.mean([score.mean for score in scores]))


def majority(train: Sequence[Item], dev: Sequence[Item], test: Sequence[Item]) -> list[str]:
    """A `Method`: the class most training items have, the first of equals."""
    names, counts = np.unique([str(item.label) for item in train], return_counts=True)
    return [str(names[counts.argmax()])] * len(test)


def write_submission(folder: str | Path, task: FewShotTask, split: str, predicted: Sequence[str]) -> Path:
    """Answers to the hidden test as ``{task}_predict_{split}.json``: one object of ``id`` and ``label`` a line.

    Raises:
        BadInput: another number of answers than the hidden test has items, an unknown split or label.
    """
    if split not in (*SPLITS, ALL):
        raise BadInput(f"splits are {', '.join((*SPLITS, ALL))}, not {split!r}")
    if len(predicted) != len(task.hidden):
        raise BadInput(f"{task.name}: {len(predicted)} answers to the {len(task.hidden)} items of the hidden test")
    if task.name != "chid" and (unknown := set(predicted) - set(task.label_names)):
        raise BadInput(f"{task.name} has no label {min(unknown)!r}{nearest(min(unknown), task.label_names)}")
    path = Path(folder) / f"{task.name}_predict_{split}.json"
    rows = [{"id": item.id, "label": answer} for item, answer in zip(task.hidden, predicted, strict=True)]
    with whole_file(path) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return path
