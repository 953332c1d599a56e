"""One mixture of instructions from a heap of labelled tasks (paper 121, Flan: Chung et al., Scaling
Instruction-Finetuned Language Models, 2022).

    setting     zero-shot or few-shot x answers listed or not, by the shares of a task's collection
    rate        of a task in its collection  min(cases, cap) / sum over its tasks min(cases, cap)
                of a collection              its rate by the sum over collections that are there
    few-shot    cases of the same task in the same template, in order, as long as inputs and targets fit into
                ``most_in`` tokens less the query's

Examples of all collections come out mixed: `InstructionMixture.draw`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from handful.adapt.parameters import count, several
from handful.errors import BadInput, nearest
from handful.pretrain.examples import Example, with_shots

SETTINGS = ("zs-opt", "fs-opt", "zs-noopt", "fs-noopt")
CAPS = {"flan2021": 30_000, "t0": 20_000, "niv2": 5_000, "cot": 100_000, "cot-ii": 100_000, "dialog": 200_000,
        "dialog-ii": 200_000}  # fmt: skip
"""Cases of a task that count at most, by collection."""
INVERTED = 0.3
"""How often an inverted task is drawn for one draw of the task itself."""
RATES = {
    "flan2021": 0.40, "t0": 0.32, "niv2": 0.20,
    "cot": 0.05 / (1 + INVERTED), "cot-ii": 0.05 * INVERTED / (1 + INVERTED),
    "dialog": 0.03 / (1 + INVERTED), "dialog-ii": 0.03 * INVERTED / (1 + INVERTED),
}  # fmt: skip
LISTED = {name: ("zs-opt", "fs-opt") if name in ("niv2", "cot", "cot-ii", "dialog", "dialog-ii") else SETTINGS
          for name in CAPS}  # fmt: skip
"""Settings of each collection, drawn alike."""
JOINED = (("\n", "\n\n"), ("\n\n", "\n\n\n"), (" ", "\n\n"))
"""What stands between input and target, and between examples."""
_FIELD, _PLACE = re.compile(r"\{(\w+)\}"), re.compile(r"\s*\{options_\}")


@dataclass(frozen=True)
class Task:
    """A labelled task.

    Args:
        name: of it.
        cases: fields of each, such as ``{"text": …, "answer": …}``.
        templates: patterns of input and target, such as ``("Is this good? {text}\\n{options_}", "{answer}")``; of
            ``options_`` the listed answers are made.
        options: answers to choose from, for all cases or for each; none for free text.
        collection: by which caps, rates and settings go.
    """

    name: str
    cases: Sequence[Mapping[str, str]]
    templates: Sequence[tuple[str, str]]
    options: Sequence[str] | Sequence[Sequence[str]] = ()
    collection: str = "flan2021"

    def __post_init__(self) -> None:
        if not self.cases or not self.templates:
            raise BadInput(f"task {self.name!r} has {len(self.cases)} cases and {len(self.templates)} templates")
        if isinstance(self.options, str) or not all(len(pair) == 2 for pair in self.templates):
            raise BadInput(f"task {self.name!r}: options are a list of texts, a template is a pair, input and target")
        known = set(self.cases[0]).union({"options_"})
        for number, case in enumerate(self.cases):
            if missing := (known - {"options_"}) - set(case):
                raise BadInput(f"case {number} of task {self.name!r} has no field {min(missing)!r}")
            if wrong := [name for name, value in case.items() if not isinstance(value, str)]:
                raise BadInput(
                    f"case {number} of task {self.name!r}: {wrong[0]!r} is {case[wrong[0]]!r}, which is no text"
                )
        for number, (given, wanted) in enumerate(self.templates):
            fields = set(_FIELD.findall(given + wanted))
            if unknown := sorted(fields - known):
                hint = nearest(unknown[0], sorted(known))
                raise BadInput(f"template {number} of task {self.name!r} names a field {unknown[0]!r}{hint}")
            if not _FIELD.search(wanted):
                raise BadInput(f"template {number} of task {self.name!r} wants the same of all cases: {wanted!r}")
        if self.options and not isinstance(self.options[0], str) and len(self.options) != len(self.cases):
            raise BadInput(f"task {self.name!r} has {len(self.cases)} cases, but options for {len(self.options)}")

    def options_of(self, case: int) -> tuple[str, ...]:
        """The answers that a case may be given; none for free text."""
        if not self.options:
            return ()
        return tuple(self.options if isinstance(self.options[0], str) else self.options[case])  # type: ignore[arg-type]

    def render(self, case: int, template: int, listed: str) -> tuple[str, str]:
        """Input and target; ``listed`` stands for the options, behind the text where the template has no place."""
        given, wanted = self.templates[template]
        if not listed:
            given = _PLACE.sub("", given)
        elif "{options_}" not in given:
            given += "\n{options_}"
        fields = {**self.cases[case], "options_": listed}

        def filled(pattern: str) -> str:
            return _FIELD.sub(lambda found: fields[found[1]], pattern)

        return filled(given), filled(wanted)


def rates_of(sizes: Sequence[float], cap: float) -> np.ndarray:
    """``min(n, cap) / sum min(n, cap)`` ``[tasks]``: in proportion to the cases, large tasks cut.

    Raises:
        BadInput: the cap is not above 0; a task has no case.
    """
    counts = np.asarray(sizes, dtype=float)
    if not cap > 0:
        raise BadInput(f"a cap of {cap:g} cases leaves none; it must be above 0")
    if not len(counts) or not (counts > 0).all():
        raise BadInput("a task without a case cannot be mixed in")
    capped = np.minimum(counts, cap)
    return np.asarray(capped / capped.sum())


@dataclass
class InstructionMixture:
    """See `handful.pretrain.mixture`.

    Args:
        tasks: their names differ.
        settings: of each collection; `LISTED` has the paper's.
        caps, rates: of each collection; rates need not sum to 1.
        shots: fewest and most examples shown, before those that do not fit are left out.
        most_in: tokens of an input at most.
        length: how many tokens a text has; words by default, so that what a model reads may be longer, and be cut.
        seed: of every draw.
        skipped: what was left out as examples were drawn: ``"no room for an example"``, a few-shot case redrawn as not
            one of its examples fits; ``"nothing to list"``, a free text in a setting that lists answers.
    """

    tasks: Sequence[Task]
    settings: Mapping[str, Sequence[str]] = field(default_factory=lambda: LISTED)
    caps: Mapping[str, float] = field(default_factory=lambda: CAPS)
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)
    shots: tuple[int, int] = (2, 5)
    most_in: int = 1024
    length: Callable[[str], int] = lambda text: len(text.split())
    seed: int = 0
    skipped: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise BadInput("give tasks, each by a name of its own" if names else "there is no task to mix")
        shots = [count("shots", n, 1) for n in several("shots", self.shots, "a pair, the fewest and the most")]
        if len(shots) != 2 or shots[0] > shots[1]:
            raise BadInput(f"shots are the fewest and the most, at least 1: {self.shots}")
        count("seed", self.seed)
        for task in self.tasks:
            for what, known in (("settings", self.settings), ("a cap", self.caps), ("a rate", self.rates)):
                if task.collection not in known:
                    raise BadInput(f"collection {task.collection!r} of task {task.name!r} has no {what}")
        for name, rate in self.rates.items():
            if not 0 <= rate < float("inf"):
                raise BadInput(f"the rate of collection {name!r} is {rate}; rates are not negative")
        for name, some in self.settings.items():
            if not some or set(some) - set(SETTINGS):
                raise BadInput(f"settings of {name!r} are {list(some)}; they are some of {', '.join(SETTINGS)}")
        if not any(self.rates[task.collection] for task in self.tasks):
            raise BadInput("all rates are 0; give one collection at least a rate above 0")

    @property
    def weights(self) -> dict[str, float]:
        """How often each task is drawn; they sum to 1."""
        out: dict[str, float] = {}
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(task.collection, []).append(task)
        total = sum(self.rates[name] for name in groups)
        for name, some in groups.items():
            rates = rates_of([len(task.cases) for task in some], self.caps[name]) * (self.rates[name] / total)
            out.update({task.name: float(rate) for task, rate in zip(some, rates, strict=True)})
        return {task.name: out[task.name] for task in self.tasks}

    def __iter__(self) -> Iterator[Example]:
        """Examples without end; each run through gives the same."""
        rng = np.random.default_rng(self.seed)
        p = np.array(list(self.weights.values()))
        misses = 0
        while True:
            task = self.tasks[int(rng.choice(len(p), p=p))]
            settings = self.settings[task.collection]
            made = self._example(task, settings[int(rng.integers(len(settings)))], rng)
            if made is not None:
                misses = 0
                yield made
            elif (misses := misses + 1) > 1000:
                raise BadInput(f"no example fits into {self.most_in} tokens; allow more, or a setting without shots")

    def draw(self, n: int) -> list[Example]:
        """The first n. Raises `BadInput` for a negative number."""
        if n < 0:
            raise BadInput(f"{n} examples cannot be drawn")
        return list(islice(self, n))

    def _example(self, task: Task, setting: str, rng: np.random.Generator) -> Example | None:
        case, template = int(rng.integers(len(task.cases))), int(rng.integers(len(task.templates)))
        listing = _Listing.draw(rng) if setting.endswith("-opt") else None
        if listing is not None and not task.options:
            self.skipped["nothing to list"] += 1

        def rendered(number: int) -> tuple[str, str]:
            options = task.options_of(number)
            return task.render(number, template, listing.of(options, rng) if listing and options else "")

        given, wanted = rendered(case)
        shown: list[int] = []
        if setting.startswith("fs"):
            between, apart = JOINED[int(rng.integers(len(JOINED)))]
            many = int(rng.integers(self.shots[0], self.shots[1] + 1))
            others = rng.permutation(len(task.cases) - 1)[:many]
            others = others + (others >= case)  # never the query itself
            room = self.most_in - self.length(given)
            pairs: list[tuple[str, str]] = []
            for number in others.tolist():
                x, y = rendered(number)
                room -= self.length(x) + self.length(y)
                if room < 0:  # in their order: what comes behind one that does not fit is left out as well
                    break
                shown.append(number)
                pairs.append((x, y))
            if not pairs:
                self.skipped["no room for an example"] += 1
                return None
            given = with_shots(given, pairs, between, apart)
        return Example(given, wanted, task.options_of(case), task.name, setting, template, case, tuple(shown))


@dataclass(frozen=True)
class _Listing:
    """How the options of an example are written, the same for all that are shown with it."""

    letters: bool
    shuffled: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Listing:
        return cls(bool(rng.random() < 0.5), bool(rng.random() < 0.5))

    def of(self, options: Sequence[str], rng: np.random.Generator) -> str:
        order = rng.permutation(len(options)) if self.shuffled else np.arange(len(options))
        signs = [f"({chr(65 + i)}) " if self.letters and len(options) <= 26 else "- " for i in range(len(options))]
        return "OPTIONS:\n" + "\n".join(sign + options[int(i)] for sign, i in zip(signs, order, strict=True))
