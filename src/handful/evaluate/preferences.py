"""Which of two models answers better, by a judge who sees both answers in both orders (paper 185, paradigm B).

    a wins where it is preferred in both orders, loses where it is in none; else a tie
    rate        (wins + ties / 2) / n, with percentiles over resampled prompts
    fair rate   the rate at answers of one length: sigmoid(b) of  logit p = b + w tanh(difference / its spread)

Judges like long answers: where the fair rate is another, length is what was judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from handful.core.intervals import Estimate, percentiles, resample
from handful.encode.lm import LanguageModel
from handful.errors import BadInput
from handful.evaluate.wording import rouge_l

Judge = Callable[[str, str, str], str]
"""Of a prompt and two answers ``"first"``, ``"second"`` or ``"tie"``; anything else is not understood."""


@dataclass(frozen=True)
class Preference:
    """How model a does against model b.

    Args:
        wins, ties, losses: of prompts.
        rate: how often a is preferred, ties half.
        fair: the same for answers of one length.
        unread: share of judgements that were not understood; they count as ties.
        swayed: share of prompts whose judgement changed with the order.
    """

    wins: int
    ties: int
    losses: int
    rate: Estimate
    fair: float
    unread: float
    swayed: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "wins": self.wins, "ties": self.ties, "losses": self.losses, **self.rate.as_dict(), "fair": self.fair,
            "unread": self.unread, "swayed": self.swayed,
        }  # fmt: skip


def pairwise_judge(
    prompts: Sequence[str], a: Sequence[str], b: Sequence[str], judge: Judge, *, swap: bool = True,
    replicates: int = 1000, seed: int = 0,
) -> Preference:  # fmt: skip
    """Compare the answers of two models to the same prompts.

    Args:
        prompts: n of them.
        a, b: n answers each.
        judge: see `Judge`; a person's file, a model, a reward.
        swap: ask in both orders. Without, a always stands first.
        replicates, seed: of the interval.

    Raises:
        BadInput: no prompts, or not as many answers; an answer that is no text; no replicates.
    """
    n = len(prompts)
    if replicates < 1:
        raise BadInput(f"replicates is {replicates}; the interval takes one at least")
    if not n or len(a) != n or len(b) != n:
        raise BadInput(f"{n} prompts, but {len(a)} and {len(b)} answers; give at least one prompt, and as many answers")
    if odd := [one for one in (*a, *b) if not isinstance(one, str)]:
        raise BadInput(f"answers are texts, not {odd[0]!r:.60}")
    votes: list[list[float]] = []  # for a: 1 preferred, 0.5 neither, 0 not
    unread = 0
    for prompt, one, other in zip(prompts, a, b, strict=True):
        said = [str(judge(prompt, one, other))]
        if swap:
            said.append({"first": "second", "second": "first"}.get(word := str(judge(prompt, other, one)), word))
        unread += sum(word not in ("first", "second", "tie") for word in said)
        votes.append([{"first": 1.0, "second": 0.0}.get(word, 0.5) for word in said])
    each = np.array(votes)
    outcome = np.where((each == 1).all(1), 1.0, np.where((each == 0).all(1), 0.0, 0.5))
    length = np.array([len(one.split()) - len(other.split()) for one, other in zip(a, b, strict=True)], dtype=float)
    return Preference(
        wins=int((outcome == 1).sum()),
        ties=int((outcome == 0.5).sum()),
        losses=int((outcome == 0).sum()),
        rate=preference_rate(outcome, replicates, seed),
        fair=fair_rate(outcome, length),
        unread=unread / each.size,
        swayed=float((each.max(1) != each.min(1)).mean()),
    )


def preference_rate(outcome: np.ndarray, replicates: int = 1000, seed: int = 0) -> Estimate:
    """The mean of outcomes ``[n]`` (1 a win, 0.5 a tie, 0 a loss), with percentiles over resampled prompts."""
    rows = np.stack([outcome, np.ones(len(outcome))], axis=1)
    drawn = resample(rows, lambda sums: sums[:, :1] / sums[:, 1:], replicates=replicates, seed=seed)
    return percentiles(float(outcome.mean()), drawn[:, 0])


def fair_rate(outcome: np.ndarray, length: np.ndarray) -> float:
    """How often a would be preferred at answers of one length.

    Args:
        outcome: ``[n]``, as in `preference_rate`.
        length: words of a's answer less those of b's ``[n]``.
    """
    if not length.any() or len(set(outcome.tolist())) == 1:
        return float(outcome.mean())
    x = np.tanh(length / length.std() if length.std() > 0 else length)[:, None]
    n = len(outcome)
    labels, weight = np.repeat([1, 0], n), np.r_[outcome, 1 - outcome]  # a tie is half of each
    fitted = LogisticRegression(C=10.0).fit(np.r_[x, x], labels, sample_weight=weight)
    return float(1 / (1 + np.exp(-fitted.intercept_[0])))


def overlap_judge(references: dict[str, str]) -> Judge:
    """Prefers the answer that has more of the reference (ROUGE-L), by prompt. Raises `BadInput` where there is none."""

    def judge(prompt: str, first: str, second: str) -> str:
        if prompt not in references:
            raise BadInput(f"there is no reference for the prompt {prompt[:60]!r}")
        a, b = (rouge_l(one, references[prompt]) for one in (first, second))
        return "first" if a > b else "second" if b > a else "tie"

    return judge


def model_judge(model: LanguageModel) -> Judge:
    """Asks a language model which answer is better, A or B."""

    def judge(prompt: str, first: str, second: str) -> str:
        mask = f" {model.tokenizer.mask_token}" if model.kind == "masked" else ""
        asked = f"Question: {prompt}\nAnswer A: {first}\nAnswer B: {second}\nThe better answer is answer{mask}"
        a, b = model.score([asked], ["A", "B"])[0].tolist()
        return "first" if a > b else "second" if b > a else "tie"

    return judge
