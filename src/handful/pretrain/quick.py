"""Instructions with a definition and examples, and nested budgets of them (paper 178, Gupta et al., Instruction Tuned
Models are Quick Learners, 2023).

    Definition: …                            the first rows are tested, the next ones are for choices, the rest is
    Positive example 1-                      learnt from; a budget is the first rows of that rest
    input: … / output: …
    Now complete the following example-
    input: …
    output:
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from handful.errors import BadInput
from handful.pretrain.examples import Example

TEST, DEV = 100, 10
SIZES = ("1%", 10, 100, 200, 1000, "all")


@dataclass(frozen=True)
class InstructionFormat:
    """How a row becomes an instruction.

    Args:
        definition: what the task is; without one only input and output are written.
        positives: examples of the task, as input and output, as many as there are to be shown (the paper shows two).
    """

    definition: str = ""
    positives: tuple[tuple[str, str], ...] = ()

    def write(self, text: str) -> str:
        """The instruction of one input."""
        asked = f"input: {text}\noutput: "
        if not self.definition:
            return asked
        shown = "".join(
            f"Positive example {number}-\ninput: {given}\noutput: {wanted}\n"
            for number, (given, wanted) in enumerate(self.positives, 1)
        )
        return f"Definition: {self.definition}\n{shown}Now complete the following example-\n{asked}"


@dataclass(frozen=True)
class QuickTask:
    """A task, cut up.

    Args:
        name: of it.
        train, dev, test: its examples.
        leaks: whether there were too few rows to keep them apart, so that all three are the same.
        category: what it counts under, such as ``"textual entailment"``.
        repeated: how many rows were left out of ``train`` because their input is tested.
    """

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    leaks: bool = False
    category: str = ""
    repeated: int = 0


def quick_task(
    name: str,
    rows: Sequence[tuple[str, Sequence[str]]],
    form: InstructionFormat,
    *,
    category: str = "",
    disjoint: bool = True,
    strict: bool = False,
    seed: int = 42,
) -> QuickTask:
    """Rows as a task: 100 tested ones, 10 for choices, the rest to learn from, in their order.

    Args:
        name: of the task.
        rows: input, and outputs of which one is drawn.
        form: how they are written; `InstructionFormat()` for input and output alone.
        category: see `QuickTask`.
        disjoint: what is done where there are fewer than 120: a tenth is for choices, a tenth and at least one to learn
            from, the rest is tested; ``False`` takes all rows three times, as the authors do.
        strict: refuse rows that are both tested and learnt; else they are left out of what is learnt.
        seed: of the outputs that are drawn.

    Raises:
        BadInput: there are fewer than three rows; one is no text with a list of texts, none empty; see ``strict``.
    """
    if len(rows) < 3:
        raise BadInput(f"task {name!r} has {len(rows)} rows; it takes at least 3 to test, to choose and to learn")
    rng, examples = np.random.default_rng(seed), []
    for number, row in enumerate(rows):
        given, wanted = row if len(row) == 2 else (None, ())
        outputs = isinstance(wanted, Sequence) and not isinstance(wanted, str)
        if not isinstance(given, str) or not outputs or not all(isinstance(one, str) for one in wanted):
            raise BadInput(f"row {number} of task {name!r} must be a text and a list of texts, not {row!r:.60}")
        if not wanted or not all(one.strip() for one in wanted):
            raise BadInput(f"row {number} of task {name!r} has an empty output")
        examples.append(Example(form.write(given), wanted[int(rng.integers(len(wanted)))], task=name, case=number))
    n = len(examples)
    if n < TEST + 2 * DEV and not disjoint:
        every = tuple(examples)
        return QuickTask(name, every, every, every, True, category)
    test = TEST if n >= TEST + 2 * DEV else n - 2 * max(1, n // 10)
    dev = DEV if n >= TEST + 2 * DEV else max(1, n // 10)
    tested = {one.inputs for one in examples[:test]}
    learnt = [one for one in examples[test + dev :] if one.inputs not in tested]
    twice = n - test - dev - len(learnt)
    if twice and strict:
        raise BadInput(f"{twice} rows of task {name!r} are tested and learnt; take them out, or set strict=False")
    if not learnt:
        raise BadInput(f"all rows of task {name!r} to learn from are tested as well")
    return QuickTask(
        name, tuple(learnt), tuple(examples[test : test + dev]), tuple(examples[:test]), False, category, twice
    )  # fmt: skip


def make_budgets(rows: Sequence[Example], sizes: Sequence[int | str] = SIZES) -> dict[str, tuple[Example, ...]]:
    """The first rows by budget; one above what there is takes all, with a warning.

    Args:
        rows: to learn from.
        sizes: numbers; shares such as ``"1%"``, at least one row; ``"all"``.

    Raises:
        BadInput: no rows; a budget makes no sense.
    """
    if not rows:
        raise BadInput("there are no rows to learn from")
    out = {}
    for size in sizes:
        out[str(size)] = tuple(rows[: _count(size, len(rows))])
        if str(size).isdigit() and int(size) > len(rows):
            warnings.warn(f"a budget of {size} takes all {len(rows)} rows there are", stacklevel=2)
    return out


def _count(size: int | str, n: int) -> int:
    if size == "all":
        return n
    try:
        if isinstance(size, str) and size.endswith("%"):
            share = float(size[:-1]) / 100
            if 0 < share <= 1:
                return max(1, int(n * share + 1e-9))
        elif isinstance(size, str | Integral) and not isinstance(size, bool) and int(size) >= 1:
            return min(int(size), n)
    except ValueError:
        pass
    raise BadInput(f"a budget is a number of rows, a share such as '1%', or 'all', not {size!r}")
