"""FewCLUE: nine Chinese tasks with five fixed splits each, read, scored and handed in.

Paper 066: Xu et al., "FewCLUE: A Chinese Few-shot Learning Evaluation Benchmark", 2021. For every task and split i a
method learns from ``train_i.json``, chooses by ``dev_i.json`` and is judged by accuracy on ``test_public.json``; then
once more on the union of the splits (``all``). The score of a task is the mean over the five, that of a method the mean
over tasks. The files are one JSON object a line, and no two tasks agree on their fields; what is handed in follows the
authors' examples, which name the classes of TNEWS and IFLYTEK by their numbers, and the idiom of CHID by its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.adapt.parameters import several
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
        if start < 0 or text[start : start + len(span)] != span:
            raise ValueError(f"{span!r} does not stand at {start}")
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
        handed_in: what a class is called in a submission.
    """

    name: str
    splits: Mapping[str, tuple[tuple[Item, ...], tuple[Item, ...]]]
    test: tuple[Item, ...]
    hidden: tuple[Item, ...]
    label_names: tuple[str, ...]
    pair: bool
    handed_in: Mapping[str, str | int]


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
    names = tuple(sorted(str(c) for c in taught))
    codes: dict[str, str | int] = {name: name for name in names}
    if task == "chid":  # places among the candidates, of which not all need be the answer to a training item
        places = {str(item.label) for item in test} | codes.keys()
        if odd := [place for place in places if not place.isdecimal()]:
            raise BadInput(f"{folder}: an answer is the place of a candidate, counted from 0, not {min(odd)!r}")
        codes = {place: int(place) for place in sorted(places)}
    elif "label" not in TASKS[task].label:  # named in words, with a number beside
        rows = [row for stem in (*SPLITS, "few_all") for _, row in _rows(folder / f"train_{stem}.json", task)]
        codes.update({str(_label(row, task)): str(row["label"]) for row in rows if "label" in row})
    return FewShotTask(task, splits, test, found, names, TASKS[task].pair, codes)


def _rows(path: Path, task: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Objects of a file, with the numbers of their lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts hold other line ends
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: FewCLUE has five splits and their union for every task") from error
    for i, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{path}, line {i}: no example of {task} ({error})") from error
            if not isinstance(row, dict):
                raise BadInput(f"{path}, line {i}: no example of {task}, but {row!r:.40}")
            yield i, row


def _label(row: Mapping[str, Any], task: str) -> str | None:
    return next((str(row[name]) for name in TASKS[task].label if name in row), None)


def _items(path: Path, task: str, labelled: bool = True) -> tuple[Item, ...]:
    form, items, seen = TASKS[task], [], set()
    for i, row in _rows(path, task):
        label = _label(row, task)
        try:
            text, other = form.read(row)
            if not isinstance(text, str) or not isinstance(other, str | None):
                raise TypeError(f"{text if isinstance(other, str) else other!r} is no text")
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
        items.append(Item(text, other, label if labelled else None, i - 1 if key is None else key))
    return tuple(items)


def accuracy(items: Sequence[Item], predicted: Sequence[str]) -> float:
    """Share of right answers, in percent.

    Raises:
        BadInput: items without labels (write a submission instead), another number of answers, or answers that are no
            labels as they stand in the items, such as class numbers.
    """
    predicted = several("predicted", predicted, "a list of labels")
    if len(items) != len(predicted) or not items:
        raise BadInput(f"{len(predicted)} answers to {len(items)} items")
    if any(item.label is None for item in items):
        raise BadInput("a hidden test has no labels to score against: write a submission instead")
    if odd := [answer for answer in predicted if not isinstance(answer, str)]:
        raise BadInput(f"answers are labels such as {items[0].label!r}, not {odd[0]!r}")
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
        BadInput: no tasks, no such splits, or answers that do not fit.
    """
    scores, names = [], [str(split) for split in several("splits", splits, "a list of splits")]
    if not names or (set(names) - set(SPLITS)):
        raise BadInput(f"splits are some of {', '.join(SPLITS)}, not {names}; {ALL!r} is judged besides")
    for task in tasks:
        asked = [item._replace(label=None) for item in task.test]
        found = {name: accuracy(task.test, method(*task.splits[name], asked)) for name in (*names, ALL)}
        each = tuple(found[name] for name in names)
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
    """Answers to the hidden test as ``{task}_predict_{split}.json``: one object of ``id`` and ``label`` (of CHID
    ``answer``) a line, with classes as ``task.handed_in`` has them.

    Raises:
        BadInput: a task without hidden test, another number of answers than it has items, an unknown split or label.
    """
    predicted = several("predicted", predicted, "a list of labels")
    if not task.hidden:
        raise BadInput(f"{task.name} has no hidden test to answer: put test.json beside its other files")
    if split not in (*SPLITS, ALL):
        raise BadInput(f"splits are {', '.join((*SPLITS, ALL))}, not {split!r}")
    if len(predicted) != len(task.hidden):
        raise BadInput(f"{task.name}: {len(predicted)} answers to the {len(task.hidden)} items of the hidden test")
    if unknown := [answer for answer in predicted if answer not in task.handed_in]:
        raise BadInput(f"{task.name} has no label {unknown[0]!r}{nearest(str(unknown[0]), task.label_names)}")
    path = Path(folder) / f"{task.name}_predict_{split}.json"
    field = "answer" if task.name == "chid" else "label"
    answers = zip(task.hidden, predicted, strict=True)
    rows = [{"id": item.id, field: task.handed_in[answer]} for item, answer in answers]
    with whole_file(path) as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return path
