"""RAFT's protocol for T-Few (027, Liu et al. 2022, section 4.3; Alex et al., RAFT, 2021).

task      50 labelled rows of named fields, an instruction, the labels; the test rows have no labels
prompt    "INSTRUCTION Possible labels: a, b  Field: text  Field: text\\nLabel:"; empty fields are left out, and
          what does not fit is cut at the end of the longest field
training  as always, without held-out rows; of tasks with many labels without L_LN and L_UL, prompts twice as long
answers   of many labels scored in parts, so that memory suffices
check     five folds of ten neighbouring rows, trained on the other forty
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.read.delimited import records
from handful.tune.delta import Placed
from handful.tune.ia3 import ia3
from handful.tune.t_few import TFew, TFewClassifier

MANY = 50
"""Labels from which on a task has many; Banking77 is the only one of RAFT's."""


@dataclass(frozen=True)
class RaftTask:
    """A task of RAFT.

    Args:
        instruction: what is to be done, in words.
        rows: by field its text.
        labels: of each row, one of ``choices``.
        choices: the labels, as they are written in the prompt.
    """

    instruction: str
    rows: Sequence[Mapping[str, str]]
    labels: Sequence[str]
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.instruction.strip() or len(self.choices) < 2:
            raise BadInput("a task needs an instruction and two labels at least")
        if not self.rows or len(self.rows) != len(self.labels):
            raise BadInput(f"{len(self.rows)} rows, but {len(self.labels)} labels")
        if unknown := [label for label in self.labels if label not in self.choices]:
            raise BadInput(f"label {unknown[0]!r} is none of {', '.join(self.choices[:5])}")

    @property
    def many(self) -> bool:
        """Whether it has so many labels that wrong answers are not learnt from."""
        return len(self.choices) >= MANY


@dataclass
class RaftClassifier:
    """T-Few on a task of RAFT; see `handful.tune.raft`.

    Args:
        model: seq2seq (the paper's) or causal.
        settings: of training; L_LN and L_UL are left out of tasks with many labels.
        changes: what learns; the vectors of (IA)^3 by default.
        most: tokens of a prompt at most, twice that for tasks with many labels.
        parts: in how many parts the answers of such a task are scored.
        seed: of every draw.
    """

    model: LanguageModel
    settings: TFew = field(default_factory=TFew)
    changes: Callable[[Any], tuple[Placed, ...]] = ia3
    most: int = 256
    parts: int = 2
    seed: int = 0
    fitted: TFewClassifier | None = field(default=None, init=False)

    def fit(self, task: RaftTask) -> RaftClassifier:
        """Learn from all labelled rows."""
        self._task = task
        settings = replace(self.settings, w_ln=0.0, w_ul=0.0) if task.many else self.settings
        most = min(self.model.most, self.most * (2 if task.many else 1))
        template = "*sent_0**sep*" if self.model.kind == "seq2seq" else "*sent_0*"
        self.fitted = TFewClassifier(self.model, [template], settings, self.changes, most, seed=self.seed)
        self.fitted.fit([self._prompt(row, task, most) for row in task.rows], task.labels, task.choices)
        return self

    def logits(self, rows: Sequence[Mapping[str, str]]) -> Tensor:
        """``-score`` of each label ``[n, C]``."""
        if self.fitted is None:
            raise BadInput("this classifier has not been fitted")
        task = self._task
        texts = [self._prompt(row, task, self.fitted.most) for row in rows]
        parts = min(self.parts, len(task.choices)) if task.many else 1
        some = [part.tolist() for part in np.array_split(np.array(task.choices, dtype=object), parts)]
        return torch.cat([self.fitted.logits(texts, part) for part in some], 1)

    def predict(self, rows: Sequence[Mapping[str, str]]) -> np.ndarray:
        """The label of each row ``[n]``."""
        best = self.logits(rows).argmax(1).tolist()
        return np.array([self._task.choices[c] for c in best], dtype=object)

    def check(self, task: RaftTask, size: int = 10) -> np.ndarray:
        """Accuracy on each fold of ``size`` neighbouring rows, trained on the others ``[folds]``."""
        n = len(task.rows)
        if not 1 <= size < n or n % size:
            raise BadInput(f"{n} rows cannot be cut into folds of {size}")
        found = []
        for at in range(0, n, size):
            held = range(at, at + size)
            kept = [row for row in range(n) if row not in held]
            part = replace(task, rows=[task.rows[i] for i in kept], labels=[task.labels[i] for i in kept])
            answers = replace(self).fit(part).predict([task.rows[i] for i in held])
            found.append(np.mean([a == task.labels[i] for a, i in zip(answers, held, strict=True)]))
        return np.array(found, dtype=float)

    def _prompt(self, row: Mapping[str, str], task: RaftTask, most: int) -> str:
        """The prompt of a row; the longest field is shortened, word by word, until it fits."""
        fields = {name: text for name, text in row.items() if text.strip()}
        while True:
            made = raft_prompt(task.instruction, fields, task.choices)
            if len(self.model.tokenizer.encode(made, add_special_tokens=False)) < most:  # one is the end's
                return made
            longest = max(fields, key=lambda name: len(fields[name].split()), default="")
            words = fields.get(longest, "").split()
            if len(words) < 2:
                raise BadInput(f"the instruction and the labels alone are longer than {most} tokens; raise most=")
            fields[longest] = " ".join(words[:-1])


def raft_prompt(instruction: str, fields: Mapping[str, str], choices: Sequence[str]) -> str:
    """The prompt in the "comma" style of the authors' code."""
    shown = [f"{name}: {text.strip()}" for name, text in fields.items() if text.strip()]
    return " ".join([f"{instruction.strip()} Possible labels: {', '.join(choices)}", *shown]) + "\nLabel:"


def read_raft(
    path: str | Path, instruction: str, fields: Sequence[str], choices: Sequence[str] = (), label: str = "Label"
) -> RaftTask:
    """A task of RAFT from its ``train.csv``.

    Args:
        path: the file, with a header.
        instruction: of the task.
        fields: columns that are shown, in their order.
        choices: the labels; by default those that occur, sorted.
        label: the column of labels.

    Raises:
        BadInput: no such file or column.
    """
    rows = records(path, (*fields, label))
    labels = [row[label] for row in rows]
    shown = [{name: row[name] for name in fields} for row in rows]
    return RaftTask(instruction, shown, labels, tuple(choices) or tuple(sorted(set(labels))))
