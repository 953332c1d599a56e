"""Published few-shot protocols, each a row of numbers: what is drawn, how often, and what is reported.

Papers 013 (remote sensing benchmark), 063 (ELEVATER), 066 (FewCLUE) and 111 ("A Closer Look at Few-shot Classification
Again"); Guo et al., "A Broader Study of Cross-Domain Few-Shot Learning", 2020; Tao et al., "Few-Shot Class-Incremental
Learning", 2020; paper 202 for classes without examples. `judge` judges one head in one setting on one data set; what it
gives are scores by draw and item (or by episode), so that heads can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from sklearn.base import clone

from handful.adapt.base import Features, Head
from handful.errors import BadInput, nearest
from handful.evaluate.elevater import metric_of
from handful.evaluate.episodic import run
from handful.evaluate.generalised import gzsl_scores
from handful.evaluate.incremental import incremental_report, incremental_step
from handful.evaluate.indices import Count
from handful.evaluate.partition import Partition, few_shot_subset, partition
from handful.evaluate.sampling import draw

BASE_SHARE, UNSEEN_SHARE = 0.6, 0.2
"""Share of the classes that are there from the start; share that has no examples."""
Kind = Literal["episodes", "splits", "given", "growing", "unseen"]


@dataclass(frozen=True)
class Setting:
    """One row of a protocol: ways (``None``: all classes) and shots (``None``: as the data's own split has it)."""

    ways: Count | None
    shots: Count | None

    @property
    def name(self) -> str:
        """``"5-way 1-shot"``."""
        ways = "" if self.ways is None else f"{self.ways}-way "
        return f"{ways}{self.shots}-shot" if self.shots is not None else f"{ways}own splits"


@dataclass(frozen=True)
class Suite:
    """A protocol.

    Attributes:
        key: as in ``--suite``; ``title`` and ``paper`` say where it is from.
        kind: episodes; draws of shots from a fixed partition; the data's own splits; classes that come later; classes
            that never come.
        settings: one after another.
        seeds: of the draws; episodes are drawn with the seed of the run.
        queries, episodes: of episodes.
        train: whether shots are drawn from the training half (``"half"``) or that and the validation quarter.
    """

    key: str
    title: str
    paper: int | None
    kind: Kind
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...] = ()
    queries: int = 15
    episodes: int = 0
    train: Literal["half", "most"] = "half"

    def changed(self, shots: Sequence[Count] | None = None, episodes: int | None = None) -> Suite:
        """The same with other shots or fewer episodes; what the protocol says is then no longer what is run.

        Raises:
            BadInput: the protocol has no such number, or shots are not what it takes.
        """
        suite = self
        if shots is not None:
            if self.kind in ("given", "unseen"):
                raise BadInput(f"--suite {self.key} has its own numbers of examples: leave out --shots")
            ways = self.settings[0].ways
            settings = tuple(Setting("any" if k == "any" else ways, k) for k in dict.fromkeys(shots))
            if any(k != "any" and int(k) < 1 for k in shots) or ("any" in shots and self.kind != "episodes"):
                raise BadInput(f"shots are numbers from 1 on (episodes know 'any' too), not {list(shots)}")
            suite = replace(suite, settings=settings)
        if episodes is not None:
            if self.kind != "episodes" or episodes < 2:
                raise BadInput(f"--suite {self.key} with --episodes {episodes}: it has no such number")
            suite = replace(suite, episodes=episodes)
        return suite


def _shots(*shots: int, ways: int | None = None) -> tuple[Setting, ...]:
    return tuple(Setting(ways, k) for k in shots)


SUITES: Mapping[str, Suite] = {
    suite.key: suite
    for suite in (
        Suite(
            "closer-look",
            "A Closer Look at Few-shot Classification Again",
            111,
            "episodes",
            (*_shots(1, 5, ways=5), Setting("any", "any")),
            episodes=2000,
        ),
        Suite(
            "rsvlm-benchmark",
            "Few-Shot Adaptation Benchmark for Remote Sensing Vision-Language Models",
            13,
            "splits",
            _shots(1, 2, 4, 8, 16),
            (1, 2, 3),
        ),
        Suite("elevater", "ELEVATER", 63, "splits", _shots(5, 20, 50), (0, 1, 2), train="most"),
        Suite("fewclue", "FewCLUE", 66, "given", (Setting(None, None),), (0, 1, 2, 3, 4)),
        Suite(
            "cross-domain",
            "A Broader Study of Cross-Domain Few-Shot Learning",
            None,
            "episodes",
            _shots(5, 20, 50, ways=5),
            episodes=600,
        ),
        Suite("fscil", "Few-Shot Class-Incremental Learning", None, "growing", _shots(5, ways=5), (0, 1, 2)),
        Suite("generalised", "Zero-Shot Learning, generalised", 202, "unseen", (Setting(None, None),), (0, 1, 2)),
    )
}


def find_suite(key: str) -> Suite:
    """The protocol of that name. Raises `BadInput` naming the nearest there is."""
    if key not in SUITES:
        raise BadInput(f"no suite {key!r}{nearest(key, SUITES)}")
    return SUITES[key]


@dataclass(frozen=True)
class SuiteData:
    """One data set seen by one encoder.

    Attributes:
        name, encoder: for the table.
        features, labels: of n items.
        text: class text by label, where there is any.
        logit_scale: of zero-shot logits.
        base: of base classes, for heads that learn from them.
        splits: rows to learn from and rows to judge by, for each seed; only for data that bring them.
    """

    name: str
    encoder: str
    features: Features
    labels: np.ndarray
    text: Mapping[Any, np.ndarray] | None = None
    logit_scale: float = 100.0
    base: Any = None
    splits: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


@dataclass(frozen=True)
class Scores:
    """What a head reaches.

    Attributes:
        value: mean, from 0 to 1.
        deviation: standard deviation over draws (over episodes of episodes).
        scores: ``[draws, items]``, or ``[1, episodes]``, with mean ``value``; empty where ``value`` is no mean, so that
            there is no test.
        figures: more numbers the protocol reports.
    """

    value: float
    deviation: float
    scores: np.ndarray
    figures: Mapping[str, float] = field(default_factory=dict)


def feasible(suite: Suite, setting: Setting, labels: np.ndarray) -> str | None:
    """Why a setting cannot be run on these labels; ``None`` where it can."""
    if suite.kind == "given" or setting.shots is None:
        return None
    names, counts = np.unique(labels, return_counts=True)
    small, shots = names[counts.argmin()], setting.shots
    if suite.kind == "episodes":
        if setting.ways not in ("any", None) and int(setting.ways or 2) > len(names):
            return f"{setting.name}: there are {len(names)} classes"
        need = 2 if shots == "any" else int(shots) + suite.queries
        has = int(counts.min())
    else:
        try:
            rows = _taught(suite, partition(labels))
        except BadInput as error:
            return f"{setting.name}: {error}"
        need, has = int(shots), int(np.unique(labels[rows], return_counts=True)[1].min())
    return None if has >= need else f"{setting.name}: class {str(small)!r} has {has} of the {need} items needed"


def judge(suite: Suite, setting: Setting, head: Head, data: SuiteData, seed: int = 0) -> Scores:
    """Judge an unfitted head, which has its class text already, by a protocol.

    Raises:
        BadInput: data that do not allow it, or a head that needs more than there is.
    """
    if suite.kind == "episodes":
        return _episodes(suite, setting, head, data, seed)
    if suite.kind == "growing":
        return _growing(suite, setting, head, data)
    if suite.kind == "unseen":
        return _unseen(suite, head, data)
    if suite.kind == "given":
        return _split_scores(head, data, data.splits, suite.seeds, "accuracy")
    parts = partition(data.labels)
    rows = _taught(suite, parts)
    drawn = [
        (few_shot_subset(data.labels, rows, int(setting.shots or 1), seed), np.asarray(parts.test))
        for seed in suite.seeds
    ]
    metric = metric_of(data.name) if suite.key == "elevater" else "accuracy"
    if metric not in ("accuracy", "mean-per-class"):
        raise BadInput(f"{data.name}: ELEVATER judges it by {metric}, which needs scores: handful.evaluate.elevater")
    return _split_scores(head, data, drawn, suite.seeds, metric)


def _taught(suite: Suite, parts: Partition) -> np.ndarray:
    """Rows that shots are drawn from."""
    return np.concatenate([parts.train, parts.val]) if suite.train == "most" else parts.train


def _episodes(suite: Suite, setting: Setting, head: Head, data: SuiteData, seed: int) -> Scores:
    drawn = draw(
        data.labels,
        ways=setting.ways or 5,
        shots=setting.shots or 1,
        queries=suite.queries,
        episodes=suite.episodes,
        seed=seed,
    )
    found = run(head, data.features, data.labels, drawn, base=data.base, seed=seed)
    a = found.accuracy
    return Scores(float(a.mean()), float(a.std(ddof=1)), a[None])


def _split_scores(
    head: Head,
    data: SuiteData,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    seeds: Sequence[int],
    metric: str,
) -> Scores:
    rows = []
    for (learn, held), seed in zip(splits, seeds, strict=True):
        fitted = _fitted(head, data, learn, seed)
        truth = data.labels[held]
        right = np.asarray(fitted.predict(data.features.take(held))) == truth
        worth = np.ones(len(truth))
        if metric == "mean-per-class":  # scores whose mean is the mean over classes
            codes, counts = np.unique(truth, return_inverse=True, return_counts=True)[1:]
            worth = len(truth) / (len(counts) * counts[codes])
        rows.append(right * worth)
    return _of_draws(np.stack(rows))


def _growing(suite: Suite, setting: Setting, head: Head, data: SuiteData) -> Scores:
    """All shots of the base classes, then ``ways`` classes a step with a few; heads that cannot grow learn anew."""
    names = np.unique(data.labels)
    first = int(np.ceil(BASE_SHARE * len(names)))
    step, shots = int(setting.ways or 5), int(setting.shots or 1)
    if first < 2 or first == len(names):
        raise BadInput(f"{data.name}: {len(names)} classes are too few to start with some and add others")
    parts, reports, last = partition(data.labels), [], []
    for seed in suite.seeds:
        order = names[np.random.default_rng(seed).permutation(len(names))]
        base = order[:first]
        known = parts.train[np.isin(data.labels[parts.train], base)]
        few = few_shot_subset(data.labels, parts.train, shots, seed)
        fitted, steps = _fitted(head, data, known, seed), []
        for at in range(first, len(names) + step, step):
            met = order[: min(at, len(names))]
            held = parts.test[np.isin(data.labels[parts.test], met)]
            if at > first:
                new = few[np.isin(data.labels[few], order[at - step : at])]
                known = np.concatenate([known, new])
                if hasattr(fitted, "grow"):
                    fitted = fitted.grow(data.features.take(new), data.labels[new])
                else:
                    fitted = _fitted(head, data, known, seed)
            answer = np.asarray(fitted.predict(data.features.take(held)))
            steps.append(incremental_step(data.labels[held], answer, base))
            right = answer == data.labels[held]
        reports.append(incremental_report(steps))
        last.append(right)
    figures = {
        "average": float(np.mean([r.average for r in reports])),
        "drop": float(np.mean([r.drop for r in reports])),
        "base": float(np.mean([r.steps[-1].base for r in reports])),
        "novel": float(np.mean([r.steps[-1].novel for r in reports if r.steps[-1].novel is not None])),
        "harmonic": float(np.mean([r.steps[-1].harmonic for r in reports if r.steps[-1].harmonic is not None])),
    }
    return replace(_of_draws(np.stack(last).astype(float)), figures=figures)


def _unseen(suite: Suite, head: Head, data: SuiteData) -> Scores:
    """Some classes have class text only; ``value`` is H, which is no mean of scores."""
    if not head.open_classes or data.text is None:
        why = "has no class text" if data.text is None else f"head {head.key!r} cannot answer for them"
        raise BadInput(f"{data.name}: classes without examples are known by their class text only: {why}")
    names = np.unique(data.labels)
    if missing := [str(c) for c in names if c not in data.text]:
        raise BadInput(f"{data.name}: class {missing[0]!r} has no class text")
    parts, found = partition(data.labels), []
    for seed in suite.seeds:
        unseen = np.random.default_rng(seed).choice(names, max(1, round(UNSEEN_SHARE * len(names))), replace=False)
        seen = np.setdiff1d(names, unseen)
        if len(seen) < 2:
            raise BadInput(f"{data.name}: {len(names)} classes are too few to leave some without examples")
        learn = parts.train[np.isin(data.labels[parts.train], seen)]
        fitted = _fitted(head, data, learn, seed)
        answer = fitted.predict(data.features.take(parts.test), classes=names.tolist())
        found.append(gzsl_scores(data.labels[parts.test], answer, seen))
    table = np.array(found)
    u, s, h = table.mean(axis=0)
    spread = float(table[:, 2].std(ddof=1)) if len(table) > 1 else 0.0
    return Scores(float(h), spread, np.empty((0, 0)), {"U": float(u), "S": float(s), "H": float(h)})


def _fitted(head: Head, data: SuiteData, rows: np.ndarray, seed: int) -> Any:
    fresh = clone(head)
    if head.random_state is None:
        fresh.random_state = seed
    if data.base is not None:
        fresh.background = data.base
    return fresh.fit(data.features.take(rows), data.labels[rows])


def _of_draws(scores: np.ndarray) -> Scores:
    means = scores.mean(axis=1)
    return Scores(float(means.mean()), float(means.std(ddof=1)) if len(means) > 1 else 0.0, scores)
