"""DCS: a rule for each class that corrects class probabilities after the fact, so that weak classes get right.

Paper 179: Lin, Wang, You, "Ensemble Debiasing Across Class and Sample Levels for Fairer Prompting Accuracy", 2025.

    rules of a class   0-16   triangles of p of slope 2 (3), 4 (5) and 8 (9), side by side from 0 to 1
                       17     p,   18   1 - p
                       19+i   w_i p,  w_i = (i + 1) / R,  i < R   (the last leaves p as it is)
    answer             argmax_c rule_(y_c)(p_c);  a row whose corrected values are all 0 stays as it was
    z(y)               alpha E + beta n COBias + tau n sum_j -log(r_j / (a_j b_j))
                       r_j = (TP_j + k) / (n + k C^2),  a_j = (answers_j + k) / (n + k C),  b_j = (n_j + k) / (n + k C)

E counts errors and COBias is the mean gap between the accuracies of two classes. The rules y that minimise z are
searched by simulated annealing: change the rule of one class, keep the change if z does not rise or with probability
exp((z_now - z_new) / T).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from handful.adapt.dcs_rules import apply, cobias, corrected, in_words, mean_gap, objective, or_given
from handful.adapt.inputs import read_labels
from handful.adapt.parameters import count, finite
from handful.errors import BadInput

__all__ = ["PATIENT", "DCSCalibrator", "Schedule", "cobias"]


@dataclass(frozen=True)
class Schedule:
    """How the annealing cools. The defaults are those of the authors' code, some hundreds of changes: enough for
    thousands of examples, while on a few hundred the best of so few may be worse than no change; see `PATIENT`.

    Args:
        start: first temperature T.
        cooling: T is multiplied by it after each round.
        stop: the search ends when T falls below it,
        rounds: and at the latest after this many rounds.
        accepted: a round ends when this many changes were taken that did not raise z,
        tried: or this many were tried.
    """

    start: float = 200_000.0
    cooling: float = 0.95
    stop: float = 200.0
    rounds: int = 400
    accepted: int = 3
    tried: int = 6

    def check(self) -> None:
        """Raise `BadInput` for a number that makes no sense."""
        finite("schedule.start", self.start, above=0)
        finite("schedule.cooling", self.cooling, above=0, most=1)
        finite("schedule.stop", self.stop, least=0)
        for name in ("rounds", "accepted", "tried"):
            count(f"schedule.{name}", getattr(self, name), least=1)


PATIENT = Schedule(accepted=150, tried=300)
"""Up to 40,000 changes, seconds."""


@dataclass(eq=False, repr=False, kw_only=True)
class DCSCalibrator(TransformerMixin, BaseEstimator):
    """Corrects the class probabilities of any classifier by one rule a class, fitted on labelled examples.

    ``alpha``, ``beta``, ``tau`` and ``n_weights`` may each be several values: then a share ``dev`` of the examples is
    held out and the combination that answers most of them right is taken.

    Args:
        n_weights: R, how many weights a class may choose among.
        alpha: of the errors.
        beta: of the gap between classes.
        tau: of the mutual information of answer and label.
        smoothing: k.
        schedule: of the annealing.
        dev: share of the examples that judges combinations.
        normalize: divide rows by their sum first; otherwise rows that do not add up to 1 are refused.
        random_state: of the annealing and the split.

    Attributes (after ``fit``):
        classes_: labels, sorted: the columns of the probabilities ``[C]``.
        rules_: the rule of each class ``[C]``, numbered as above.
        objective_: its z.
        path_: the best z after each round of the annealing.
        chosen_: the alpha, beta, tau and n_weights that were used.
        n_features_in_: C.
    """

    n_weights: int | Sequence[int] = 30
    alpha: float | Sequence[float] = 1.0
    beta: float | Sequence[float] = 2.7
    tau: float | Sequence[float] = 0.2
    smoothing: float = 4000.0
    schedule: Schedule = PATIENT
    dev: float = 0.05
    normalize: bool = False
    random_state: int | None = None

    def fit(self, P: Any, y: Any) -> Self:
        """Choose rules by probabilities ``[n, C]`` of n labelled examples; columns in the order of the sorted labels.

        Raises:
            BadInput: rows that are no probabilities, a class without examples, a parameter that makes no sense, too
                few examples to hold some out.
        """
        p = self._probabilities(P)
        y = read_labels(y, len(p))
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != p.shape[1]:
            raise BadInput(
                f"probabilities of {p.shape[1]} classes but examples of {len(self.classes_)}: every class needs some"
            )
        if p.shape[1] < 2:
            raise BadInput("one class only: at least two classes are needed")
        self.n_features_in_ = p.shape[1]
        grid = self._grid()
        self.chosen_ = grid[0]
        if len(grid) > 1:
            self.chosen_, p, codes = self._choose(grid, p, codes)
        self.rules_, self.path_ = self._anneal(self.chosen_, p, codes)
        self.objective_ = float(self.path_[-1])
        return self

    def transform(self, P: Any) -> np.ndarray:
        """Corrected probabilities ``[n, C]``: what the rules make of them, divided by the sum of the row."""
        check_is_fitted(self)
        values = self._corrected(P)
        out: np.ndarray = values / values.sum(1, keepdims=True)
        return out

    def predict(self, P: Any) -> np.ndarray:
        """The label with the highest corrected probability for each row of ``[n, C]``."""
        check_is_fitted(self)
        answer: np.ndarray = self.classes_[self._corrected(P).argmax(1)]
        return answer

    def explain(self) -> list[dict[str, Any]]:
        """For each class its ``rule``, whether it acts on the ``class`` or the ``sample``, and the rule in words."""
        check_is_fitted(self)
        return [
            {"class": label, "rule": int(rule), "level": level, "meaning": meaning}
            for label, rule in zip(self.classes_.tolist(), self.rules_, strict=True)
            for level, meaning in [in_words(int(rule), self.chosen_["n_weights"])]
        ]

    def _grid(self) -> list[dict[str, Any]]:
        several: dict[str, Sequence[Any]] = {}
        for name in ("alpha", "beta", "tau", "n_weights"):
            value = getattr(self, name)
            several[name] = value if isinstance(value, (list, tuple)) else (value,)
            if not several[name]:
                raise BadInput(f"{name} must be a number or several, not none")
            for one in several[name]:
                count(name, one, least=1) if name == "n_weights" else finite(name, one, least=0)
        finite("smoothing", self.smoothing, above=0)
        finite("dev", self.dev, above=0, most=0.5)
        if not isinstance(self.schedule, Schedule):
            raise BadInput(f"schedule is a Schedule(start=..., ...), not {self.schedule!r}")
        self.schedule.check()
        return [dict(zip(several, values, strict=True)) for values in itertools.product(*several.values())]

    def _choose(
        self, grid: list[dict[str, Any]], p: np.ndarray, codes: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """The best of the grid, and the examples that are left to fit it."""
        n, ways = p.shape
        held = n - int((1 - self.dev) * n)
        if held < ways:
            raise BadInput(
                f"{n} examples leave {held} to choose strengths by, fewer than the {ways} classes: "
                "give more examples, a larger dev, or one value of each strength"
            )
        order = np.random.default_rng(self.random_state).permutation(n)
        dev, rest = order[:held], order[held:]
        if missing := np.setdiff1d(np.arange(ways), codes[rest]).tolist():
            raise BadInput(f"class {self.classes_[missing[0]]!r} has too few examples to hold some out: give more")
        scores = []
        for chosen in grid:
            rules, _ = self._anneal(chosen, p[rest], codes[rest])
            answers = apply(rules, p[dev], chosen["n_weights"]).argmax(1)
            hits = answers == codes[dev]
            seen = np.bincount(codes[dev], minlength=ways)
            share = np.bincount(codes[dev], hits, minlength=ways)[seen > 0] / seen[seen > 0]
            scores.append((hits.sum(), -mean_gap(share)))
        return grid[max(range(len(grid)), key=scores.__getitem__)], p[rest], codes[rest]

    def _anneal(self, chosen: dict[str, Any], p: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ways, plan = p.shape[1], self.schedule
        table = corrected(np.ascontiguousarray(p.T), chosen["n_weights"])  # [rules, C, n]
        size, places = np.bincount(codes, minlength=ways), np.arange(ways)
        strengths = {name: chosen[name] for name in ("alpha", "beta", "tau")}
        known: dict[bytes, float] = {}

        def judge(rules: np.ndarray) -> float:
            key = rules.tobytes()
            if key not in known:
                answers = or_given(table[rules, places], p.T).argmax(0)
                cells = np.bincount(codes * ways + answers, minlength=ways * ways).reshape(ways, ways)
                z = objective(cells.diagonal(), cells.sum(0), size, **strengths, smoothing=self.smoothing)
                known[key] = float(z)
            return known[key]

        draw = np.random.default_rng(self.random_state)
        best = now = np.full(ways, len(table) - 1)
        best_z = now_z = judge(now)
        temperature, path = plan.start, []
        for _ in range(plan.rounds):
            which = draw.integers(ways, size=plan.tried).tolist()
            step = draw.integers(1, len(table), size=plan.tried).tolist()
            chance = draw.random(plan.tried).tolist()
            accepted = 0
            for c, by, luck in zip(which, step, chance, strict=True):
                new = now.copy()
                new[c] = (new[c] + by) % len(table)  # any rule but the present one
                z = judge(new)
                accepted += z <= now_z
                if z <= now_z or luck < np.exp((now_z - z) / temperature):
                    now, now_z = new, z
                if z < best_z:
                    best, best_z = new, z
                if accepted >= plan.accepted:
                    break
            path.append(best_z)
            temperature *= plan.cooling
            if temperature < plan.stop:
                break
        return best, np.array(path)

    def _corrected(self, P: Any) -> np.ndarray:
        p = self._probabilities(P)
        if p.shape[1] != self.n_features_in_:
            raise BadInput(f"probabilities of {p.shape[1]} classes; the calibrator knows {self.n_features_in_}")
        return apply(self.rules_, p, self.chosen_["n_weights"])

    def _probabilities(self, given: Any) -> np.ndarray:
        try:
            p = np.asarray(given, dtype=float)
        except (TypeError, ValueError) as error:
            raise BadInput(f"probabilities must be numbers [n, C]: {error}") from error
        if p.ndim != 2 or not p.size:
            raise BadInput(f"probabilities must be [n, C], not an array of shape {p.shape}")
        total = p.sum(1)
        bad = ~(np.isfinite(p).all(1) & (p >= 0).all(1) & (total > 0))
        if not self.normalize:
            bad |= np.abs(total - 1) > 1e-3
        if bad.any():
            cure = (
                "not negative and not all 0" if self.normalize else "not negative and add up to 1 (or normalize=True)"
            )
            row = int(bad.argmax())
            raise BadInput(f"row {row} of {p.shape} does not hold probabilities: they are finite, {cure}")
        out: np.ndarray = p / total[:, None] if self.normalize else p.clip(max=1)
        return out
