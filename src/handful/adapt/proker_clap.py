"""ProKeR with CLAP: class text is trained near where it was, a kernel corrects what it still gets wrong.

Paper 140: Bendou, Ouasfi, Gripon, Boukhayma, "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large
Vision-Language Models", 2025, joined with CLAP (Silva-Rodríguez, Hajimiri, Ben Ayed, Dolz, 2024). With unit rows S,
unit class text t_c, the rows w_c that are learnt and W those made unit:

    f(z) = s (z W' + k(z, S) (K / lambda + I)^-1 (Y - S W'))         `handful.adapt.kernel`, anew in every step
    min_w  CE(y, softmax f) + mean_c a_c |w_c - t_c|^2
    a_c = mean over the examples of c of softmax(s S t')_c

A class whose text is right from the start is held where it is. The gradient does not pass through the correction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.adapt.kernel import Convention, KernelHead, Regression, Strength, correction, strengths
from handful.adapt.parameters import count, finite
from handful.adapt.two_towers import item_rows, query_rows, text_rows
from handful.core.distances import unit
from handful.core.kernels import Ridge, rbf
from handful.core.losses import cross_entropy, real_rows
from handful.core.task import Query, State, Task, mask_classes
from handful.core.train import AdamW, batches, cosine, descend
from handful.protocols import Needs

WARMUP, WARMUP_LR = 50, 1e-5
STEPS = {1: 100, 2: 100, 4: 200, 8: 200, 16: 200}
"""By shots, in the reference."""


@dataclass(eq=False, repr=False, kw_only=True)
class ProKeRCLAP(KernelHead):
    """ProKeR whose class text is trained along, each class held by how well it did zero-shot.

    Args:
        beta: of the kernel; a number, ``"shots"`` (the paper's values, nearest number of shots) or ``"loo"``, see
            `handful.adapt.kernel.ProKeR`; with the class text as it was.
        lam: likewise.
        convention: ``"proker"`` or ``"krr"``, see there.
        steps: of training, or ``"shots"``: 100 for one and two shots, else 200, as the reference has it.
        lr: of AdamW with decay 0.01, growing over 50 steps, then falling by a cosine over as many as there are steps.
        batch_size: examples a step, in an order drawn with ``random_state``; what does not fill one waits for the next
            order.
    """

    key: ClassVar[str] = "proker-clap"
    needs: ClassVar[Needs] = Needs(text=True, gradient=True, stochastic=True)
    shapes: ClassVar[Mapping[str, str]] = {**KernelHead.shapes, "words": "C T"}

    beta: Strength = "shots"
    lam: Strength = "shots"
    convention: Convention = "proker"
    steps: int | Literal["shots"] = "shots"
    lr: float = 1e-4
    batch_size: int = 64

    def adapt(self, task: Task) -> State:
        """State: that of ProKeR for the trained text, which are unit ``words [*b, C, T]``."""
        finite("lr", self.lr, above=0)
        count("batch_size", self.batch_size, 1)
        regression = self._regression(task)
        beta, lam = self._strengths(regression)
        kernel = regression.kernel(beta)
        smooth = smoother(kernel, task, lam, self.convention)
        x, y, words = item_rows(task), task.y, text_rows(task)
        ways, hold = task.ways, held(x, y, words, task, self.logit_scale)
        passed = kernel @ smooth

        def losses(parameters: list[Tensor], seen: Tensor) -> Tensor:
            scores = x @ unit(parameters[0]).mT
            wrong = correction(task, scores.detach(), self.convention).target
            logits = self.logit_scale * (scores + passed @ wrong)[..., seen, :]
            far = (hold * (parameters[0] - words).square().sum(-1)).sum(-1) / ways
            return cross_entropy(logits, y[..., seen, :], task.class_mask) + far

        wanted, found = self._steps(task), words
        for n in sorted(set(wanted.flatten().tolist())):
            rate = cosine(self.lr, max(1, n), warmup=WARMUP, warmup_lr=WARMUP_LR, climb=True)
            new = descend([words], losses, islice(self._batches(task), n), rate, AdamW())[0]
            found = torch.where((wanted == n)[..., None, None], new, found)
        found = unit(found)
        coefficient = smooth @ correction(task, x @ found.mT, self.convention).target
        return {"keys": unit(task.x), "coefficient": coefficient, "beta": beta, "strength": lam, "words": found}

    def answer(self, state: State, query: Query) -> Tensor:
        """``f(z)``."""
        kernel = rbf(unit(query.x), state["keys"], state["beta"][..., None, None])
        return self.logit_scale * (query_rows(query) @ state["words"].mT + kernel @ state["coefficient"])

    def leave_one_out(self, task: Task) -> Tensor | None:
        """None: the text has been trained on all."""
        return None

    def _regression(self, task: Task) -> Regression:
        return correction(task, item_rows(task) @ text_rows(task).mT, self.convention)

    def _strengths(self, regression: Regression) -> tuple[Tensor, Tensor]:
        return strengths(regression, self.beta, self.lam)

    def _steps(self, task: Task) -> Tensor:
        shots = task.y.sum((-2, -1)) / task.ways
        if self.steps != "shots":
            return torch.full_like(shots, count("steps", self.steps), dtype=torch.long)
        table = shots.new_tensor(list(STEPS.items()))
        return table[(shots[..., None] - table[:, 0]).abs().argmin(-1), 1].long()

    def _batches(self, task: Task) -> Iterator[Tensor]:
        """Without end."""
        rows = real_rows(task)
        size = min(len(rows), self.batch_size)
        endless = 2**62
        return (seen for seen in batches(rows, endless, size, task.seed) if len(seen) == size)


def smoother(kernel: Tensor, task: Task, lam: Tensor, convention: Convention) -> Tensor:
    """The matrix ``[*b, N, N]`` that makes coefficients of what is wrong: ``(K / lambda + I)^-1``, or as `Ridge`."""
    n = kernel.shape[-1]
    eye = torch.eye(n, dtype=kernel.dtype, device=kernel.device).expand_as(kernel)
    found = Ridge.of(kernel, eye, task.weight, lam).coefficients()
    return found * lam[..., None, None] if convention == "proker" else found


def held(x: Tensor, y: Tensor, words: Tensor, task: Task, scale: float) -> Tensor:
    """CLAP's multipliers a_c ``[*b, C]``: the mean zero-shot probability of a class over its own examples ``y``."""
    p = mask_classes(scale * x @ words.mT, task.class_mask).softmax(-1)
    return (y * p).sum(-2) / y.sum(-2).clamp_min(1e-30)
