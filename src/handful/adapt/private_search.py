"""A private linear head whose hyper-parameters are searched on the private examples, within the budget.

Paper 003: Tobaben, Shysheya, Bronskill, Paverd, Tople, Zanella-Béguelin, Turner, Honkela, "On the Efficacy of
Differentially Private Few-shot Image Classification", 2023, searches epochs, clipping norm and rate by 20 trials of
Bayesian optimisation on 70 % of the examples, judged on the other 30 %, and then learns from all. It does not charge
epsilon for that. Here each trial is paid for:

    trial    DP-SGD on 70 %, all of them at each of T steps, noise s_t sqrt(T) C;  released: hits on 30 % + s_t N(0, 1)
    at last  DP-SGD on all by the best setting, noise s_f sqrt(T) C
    trials / s_t^2 = share / s^2,   1 / s_f^2 = (1 - share) / s^2,   s the least for which (epsilon, delta) hold

Whatever part of a trial an example is in, it moves that one only: T sums of gradients by C at most, or the hits by 1.
Both are one Gaussian mechanism with noise s_t, whatever the setting; what is tried next depends on what was released
alone. So all together are no more than one Gaussian mechanism with noise s.

The next setting is that of the largest expected improvement by a Gaussian process, which knows the noise of the hits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from handful.adapt.parameters import count, finite
from handful.adapt.private import Descent, PrivateHead
from handful.core.accounting import accountant, epsilon_of, noise_for
from handful.core.noise import Source
from handful.core.privacy import Budget, PrivacySpent
from handful.core.task import State, Task, mask_classes
from handful.errors import BadInput
from handful.protocols import Needs

TRAINED = 0.7
LOOKED_AT = 512
"""Settings that the process chooses among; the first half of the trials are at random."""
LEAST_NOISE = 1e-6
"""Variance of the hits as a share that the process assumes at least."""


@dataclass(eq=False, repr=False, kw_only=True)
class PrivateSearch(PrivateHead):
    """Softmax regression with differential privacy that searches its hyper-parameters, and pays for it.

    All examples take part in every step, which leaves the most accuracy for a budget and makes trials cost the same.
    With few examples or a small budget the search costs more than it brings: half of the budget is 1.4 times the noise.

    Args:
        trials: how many settings are tried.
        share: of the budget that goes to them.
        epochs: least and most passes over the examples.
        max_grad_norm: least and most clipping norm.
        lr: least and highest rate of the optimiser.

    The others, and what is there after ``fit``: see `handful.adapt.private.PrivateHead`.
    """

    key: ClassVar[str] = "private-search"
    needs: ClassVar[Needs] = Needs(gradient=True, stochastic=True, batched="loop")
    shapes: ClassVar[Mapping[str, str]] = {"weight": "C D", "bias": "C", "setting": "S"}

    trials: int = 20
    share: float = 0.5
    epochs: Sequence[int] = (1, 200)
    max_grad_norm: Sequence[float] = (0.2, 10.0)
    lr: Sequence[float] = (1e-7, 1e-2)

    def noises(self, n: int) -> tuple[float, float, float]:
        """``s``, ``s_t`` and ``s_f`` for n examples; zero without a budget.

        Raises:
            BadInput: a parameter out of range, an epsilon too small for any noise, dp-accounting not installed.
        """
        delta = self._check(n)
        if self.epsilon is None:
            return 0.0, 0.0, 0.0
        s = noise_for(float(self.epsilon), delta, 1.0, 1)
        return s, s * math.sqrt(self.trials / self.share), s / math.sqrt(1 - self.share)

    def spent(self, n: int) -> PrivacySpent:
        """What was spent; steps, sigma and C are those of the last run."""
        delta, (s, _, last) = self._check(n), self.noises(n)
        steps, clip = int(self.state_["setting"][0]), float(self.state_["setting"][1])
        epsilon = None if self.epsilon is None else epsilon_of(s, 1.0, 1, delta)
        counted = None if epsilon is None else accountant()
        return PrivacySpent(epsilon, delta, n, 1.0, steps, last * math.sqrt(steps), clip, self.noise, counted)

    def searched(self) -> dict[str, Any]:
        """What the search took and found, JSON-able; all of it was released with noise."""
        passes, clip, rate = self.state_["setting"].tolist()
        found = {"epochs": int(passes), "max_grad_norm": clip, "lr": rate}
        return {"trials": self.trials, "share": self.share, "found": found}

    def adapt(self, task: Task) -> State:
        """State: ``weight [*b, C, D]``, ``bias [*b, C]`` and ``setting [*b, 3]``: epochs, clipping norm and rate.

        Raises:
            BadInput: as `noises`; a seed beside the system's noise.
        """
        self._refuse_seed()
        if task.support.dim() > 2:
            states = [self.adapt(_one_of(task, i)) for i in range(len(task.support))]
            return {name: torch.stack([state[name] for state in states]) for name in states[0]}
        real = task.weight > 0
        n = int(real.sum())
        _, trial, last = self.noises(n)
        source = Source.system() if self.noise == "system" else Source.seeded(task.seed)
        rng = np.random.default_rng(np.frombuffer(source.take(32), dtype=np.uint32))
        z = self._rows(task.x)
        tried, scores = np.empty((0, 3)), np.empty(0)
        held = (1 - TRAINED) * n
        for i in range(self.trials):
            place = rng.random(3) if 2 * i <= self.trials - 1 else propose(tried, scores, trial / held, rng)
            hits = self._hits(task, z, real, self._setting(place), trial, source)
            tried, scores = np.vstack([tried, place]), np.append(scores, hits / held)
        setting = self._setting(tried[best(tried, scores, trial / held)])
        weights = self._learn(task, z, real, setting, n, last, source)
        chosen = torch.tensor(setting, dtype=z.dtype, device=z.device)
        return {"weight": weights[..., :-1], "bias": weights[..., -1], "setting": chosen}

    def _hits(
        self, task: Task, z: Tensor, real: Tensor, setting: tuple[int, float, float], noise: float, source: Source
    ) -> float:
        """How many of the examples put aside are right after learning from the others, with noise."""
        first, n = real.clone(), int(real.sum())
        first[real] = source.uniform(n).to(real.device) < TRAINED
        weights = self._learn(task, z, first, setting, TRAINED * n, noise, source)
        logits = mask_classes(z @ weights[:, :-1].mT + weights[:, -1], task.class_mask)
        right = (logits.argmax(-1) == task.y.argmax(-1)) & real & ~first
        return float(right.sum()) + noise * float(source.normal(1))

    def _learn(
        self,
        task: Task,
        z: Tensor,
        real: Tensor,
        setting: tuple[int, float, float],
        size: float,
        noise: float,
        source: Source,
    ) -> Tensor:
        """Weights ``[C, D + 1]`` by ``epochs`` steps, each over all ``real`` examples, ``size`` of them expected."""
        steps, clip, rate = setting
        sigma = noise * math.sqrt(steps)
        numbers = torch.tensor([size, 1.0, sigma, steps], dtype=torch.float64, device=z.device)
        b, q, s, t = numbers[:, None, None].unbind()
        run = Descent(b, q, s, t, clip, rate, self.optimizer)
        return run.weights(task, z, real, source)

    def _setting(self, place: np.ndarray) -> tuple[int, float, float]:
        """Epochs, clipping norm and rate at a place in the unit cube."""
        low, high = np.array([self.epochs, self.max_grad_norm, self.lr], dtype=float).T
        passes, clip, rate = (low + place * (high - low)).tolist()
        return round(passes), clip, rate

    def _check(self, n: int) -> float:
        """Delta. Raises `BadInput` for a parameter that makes no sense."""
        for name in ("epochs", "max_grad_norm", "lr"):
            ends = getattr(self, name)
            whole = name == "epochs"
            if not isinstance(ends, (tuple, list)) or len(ends) != 2:
                raise BadInput(f"{name} of a search are two numbers, the least and the most, not {ends!r}")
            for end in ends:
                count(name, end, 1) if whole else finite(name, end, above=0)
            if ends[0] > ends[1]:
                raise BadInput(f"{name}={tuple(ends)}: the least comes first")
        count("trials", self.trials, 1)
        finite("share", self.share, above=0)
        if self.share >= 1:
            raise BadInput(f"share={self.share} leaves no budget for the last run: it must be below 1")
        if n < 2:
            raise BadInput(f"{n} example: a search learns from some and is judged on others")
        plain = Budget(self.epsilon, self.delta, 1.0, 1, None, 1.0, self.optimizer, self.noise)
        return replace(plain, epsilon=None).plan(n).delta


def _one_of(task: Task, i: int) -> Task:
    """The i-th along the first batch dimension, as far as it is learnt from."""
    own = {name: getattr(task, name)[i] for name in ("support", "labels", "weight", "item", "class_mask")}
    nothing: dict[str, Any] = {"prior": None, "text": None, "query": None, "unlabelled": None, "views": {}}
    return replace(task, **own, **nothing)


def best(tried: np.ndarray, scores: np.ndarray, noise: float) -> int:
    """Which of the settings ``tried [t, 3]`` is best by the process, which evens out the noise of ``scores [t]``."""
    if len(scores) < 2 or noise == 0:
        return int(np.argmax(scores))
    return int(np.argmax(_process(tried, scores, noise, tried)[0]))


def propose(tried: np.ndarray, scores: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The next place ``[3]`` in the unit cube: of the largest expected improvement."""
    places = rng.random((LOOKED_AT, 3))
    mean, deviation = _process(tried, scores, noise, np.vstack([places, tried]))
    gain = mean[:LOOKED_AT] - mean[LOOKED_AT:].max()
    wide = np.maximum(deviation[:LOOKED_AT], 1e-12)
    expected = gain * norm.cdf(gain / wide) + wide * norm.pdf(gain / wide)
    return np.asarray(places[int(np.argmax(expected))])


def _process(tried: np.ndarray, scores: np.ndarray, noise: float, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the score at ``places [p, 3]``."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    kernel = ConstantKernel(0.1, (1e-4, 1e2)) * Matern(np.full(3, 0.5), (0.05, 20.0), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=max(noise**2, LEAST_NOISE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strengths at the end of their range
        process.fit(tried, scores - scores.mean())
    mean, deviation = process.predict(places, return_std=True)
    return np.asarray(mean) + scores.mean(), np.asarray(deviation)
