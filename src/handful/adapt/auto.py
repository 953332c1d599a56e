"""``auto``: the head for who does not want to choose one.

Kernel ridge regression, discriminant analysis and the class names are three views of the same few examples. Each gives
logits of every example by a fit that has not seen it, in closed form. By these alone ``auto`` chooses

    the transform    the features, their square roots where none is negative, either beside a middle layer's
    the names        with or without one more example a class: the vector of its name, moved to where the examples are
    the blend        L = sum_m g_m L_m,  g = sum_B w_B t_B a_B / rms(L),  w_B = softmax_B(-n loss_B), a_B from `BLENDS`
    the spread       t with the smallest log loss of softmax(t L): probabilities mean what they say

Where most classes have a single item nothing can be left out: the blend and spread that do well on average are used
(`BLIND`). Class names take part only if they label the examples better than chance would. Unlabelled items are one more
candidate where there are any, see `handful.adapt.pooled`; nothing is assumed of how often a class occurs among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from handful.adapt.base import Head
from handful.adapt.plans import TRANSFORMS, Plan, make_plans, members, names_confirmed, transformed
from handful.adapt.pooled import pool_state, unused, with_pool
from handful.core.calibration import accuracy, fit_scale, hedged
from handful.core.task import Query, State, Task, lowest, mask_classes
from handful.errors import BadInput
from handful.protocols import Needs

BLENDS = (
    (1.0, 0.0, 0.0),
    (0.5, 0.5, 0.0),
    (0.0, 1.0, 0.0),
    (0.5, 0.5, 0.15),
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 1.5),
    (0.0, 0.0, 1.0),
)
"""Parts of regression, discriminant analysis and class names."""
BLIND = {False: (1.0, 0.0, 0.0), True: (0.5, 0.5, 0.15)}
"""The blend where nothing can be left out, without and with class names."""
BLIND_SPREAD = {False: 0.9, True: 1.6}
"""And its spread."""
UNTRIED = 1e6
"""Stands for the log loss of what was not considered; a model file holds finite numbers only."""
PARTS = ("kernel ridge", "discriminant analysis", "class names")
METRICS = ("accuracy", "balanced", "macro-f1", "log-loss")


@dataclass(eq=False, repr=False, kw_only=True)
class Auto(Head):
    """Transform, blend and trust in class names, chosen by what the examples say of each other.

    Args:
        metric: ``"accuracy"`` and ``"log-loss"`` count every example the same, ``"balanced"`` and ``"macro-f1"`` every
            class. All choose by the log loss, which tells more than counts of right answers do when examples are few.

    Attributes (after ``fit``):
        candidates_: what was tried, best first: ``name``, ``accuracy`` and ``log_loss`` (nats) of examples left out.
        choice_, why_: what was chosen and why, in words.
        text_weight_, text_why_: the share of class names in the answer, 0 to 1, and why.
    """

    key: ClassVar[str] = "auto"
    needs: ClassVar[Needs] = Needs()
    learns_from_pool: ClassVar[bool] = True

    metric: Literal["accuracy", "balanced", "macro-f1", "log-loss"] = "accuracy"

    @property
    def directions(self) -> bool:
        """Rows are made unit."""
        return True

    def adapt(self, task: Task) -> State:
        """State: ``gain [*b, M]``, ``transform [*b]``, the heads' states as ``regression.…`` and ``discriminant.…``,
        of unlabelled items ``pool.…``, see `handful.adapt.pooled`.

        For the record ``tried [*b, P, 2]``, ``loss`` and ``right [*b, P, B]``, ``share [*b, M]``, ``rows``, ``named``
        and ``blind [*b]``.
        """
        (state, left_out), pool = self._learn(task), task.pool
        if pool is None:
            return state
        y, blind = self._judged(task)
        found = pool_state(task, pool, self.answer(state, pool), left_out, y, blind)
        return state | unused(found, blind & (state["named"] <= 0) & (task.ways < 3))

    def answer(self, state: State, query: Query) -> Tensor:
        """``sum_m g_m L_m``."""
        hows = TRANSFORMS if "middle" in query.views else TRANSFORMS[:2]
        rows = torch.stack([transformed(query.x, query.views, how) for how in hows])
        asked = Query(_at(rows, state["transform"].long()))
        parts = []
        for name, head in members("regression.weight" in state).items():
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            parts.append(head.answer(own, asked))
        parts.append(torch.zeros_like(parts[0]) if query.prior is None else query.prior)
        return with_pool(state, query.x, _blend(torch.stack(parts), state["gain"].movedim(-1, 0)))

    def leave_one_out(self, task: Task) -> Tensor | None:
        """The blend of the closed forms, everything chosen held; ``None`` where a class has a single item, and with
        unlabelled items."""
        if task.unlabelled is not None or not bool((task.fewest_items >= 2).all()):
            return None
        return self._learn(task)[1]

    def spread(self, X: Any, y: Any) -> float:
        """1: the spread is in the gain already."""
        return 1.0

    def view_widths(self) -> dict[str, int]:
        """See `Head.view_widths`; with ``middle`` where the rows learnt from are wider than the features."""
        middle = self.state_["discriminant.weight"].shape[-1] - self.n_features_in_
        return super().view_widths() | ({"middle": middle} if middle > 0 else {})

    def _learn(self, task: Task) -> tuple[State, Tensor]:
        if self.metric not in METRICS:
            raise BadInput(f"metric is one of {', '.join(METRICS)}, not {self.metric!r}")
        trust = names_confirmed(task)
        y, blind = self._judged(task)
        plans = make_plans(task, trust)
        choices = [_Choice.of(plan, task, y, trust, blind) for plan in plans]
        loss = torch.stack([choice.loss for choice in choices])
        loss = loss.masked_fill(torch.stack([plan.names & ~trust for plan in plans]), torch.inf)
        named = torch.tensor([plan.names for plan in plans], device=loss.device)
        last = torch.where(trust, len(plans) - 1, int((~named).nonzero().max()))
        index = torch.where(blind, last, loss.argmin(0))
        hows = [torch.full_like(index, TRANSFORMS.index(plan.transform)) for plan in plans]
        state = {
            "gain": _at(torch.stack([choice.gain for choice in choices]), index),
            "transform": _at(torch.stack(hows), index).to(y.dtype),
            "rows": (named[index] & trust).to(y.dtype) / (1 + task.y.sum((-2, -1)) / task.ways),
            "share": _at(torch.stack([choice.share for choice in choices]), index),
            "blind": blind.to(y.dtype),
            "named": trust.to(y.dtype),
            "tried": _tried(plans, y),
            "loss": torch.stack([choice.losses.movedim(0, -1) for choice in choices], -2).clamp_max(UNTRIED),
            "right": torch.stack([choice.right.movedim(0, -1) for choice in choices], -2),
        }
        state |= {key: _at(torch.stack([plan.state[key] for plan in plans]), index) for key in plans[0].state}
        return state, _at(torch.stack([choice.left_out for choice in choices]), index)

    def _judged(self, task: Task) -> tuple[Tensor, Tensor]:
        """Labels times weights ``[*b, N, C]`` of the rows that can be judged, those whose class has another item, with
        every class as heavy as the others where the metric has it so; and whether most classes have none ``[*b]``."""
        items = ((task.y > 0) & task.items.first[..., None]).sum(-2)
        able = items >= 2
        blind = able.sum(-1) * 2 < task.ways.clamp_min(3)
        y = torch.where((able | blind[..., None])[..., None, :], task.y, 0.0)
        if self.metric in ("balanced", "macro-f1"):
            mass = y.sum(-2, keepdim=True)
            even = mass.sum(-1, keepdim=True) / (mass > 0).sum(-1, keepdim=True).clamp_min(1)
            y = y / mass.clamp_min(1e-30) * even
        return y, blind

    # --- what was chosen, in words ----------------------------------------------------------------------------------

    @property
    def candidates_(self) -> list[dict[str, Any]]:
        """What was tried, the best first; empty where nothing could be left out."""
        check_is_fitted(self)
        if self.state_["blind"] > 0:
            return []
        rows = []
        for p, (how, names) in enumerate(self.state_["tried"].tolist()):
            for b, blend in enumerate(BLENDS):
                loss = float(self.state_["loss"][p, b])
                if loss < UNTRIED:
                    name = f"{_words(blend)} on {HOW[TRANSFORMS[int(how)]]}{' and class names' if names else ''}"
                    rows.append({"name": name, "accuracy": float(self.state_["right"][p, b]), "log_loss": loss})
        return sorted(rows, key=lambda row: (-row["accuracy"], row["log_loss"]))

    @property
    def choice_(self) -> str:
        """The chosen blend, its parts by how far they spread the logits."""
        check_is_fitted(self)
        share = self.state_["share"]
        how = HOW[TRANSFORMS[int(self.state_["transform"])]]
        names = " and class names" if self.state_["rows"] > 0 else ""
        return f"{_words(tuple(share.tolist()))} on {how}{names}{self._pool_words()}"

    def _pool_words(self) -> str:
        """How far unlabelled items take part."""
        if "pool.size" not in self.state_:
            return ""
        share, size = float(self.state_["pool.share"]), int(self.state_["pool.size"])
        items = f"{size:,} unlabelled item{'s' if size != 1 else ''}"
        return f", and class means with {items} (trusted to {100 * share:.0f} %)"

    @property
    def why_(self) -> str:
        """On what grounds."""
        check_is_fitted(self)
        if self.state_["blind"] > 0:
            return "most classes have a single example, so none could be left out to compare: the blend usually best"
        return "smallest log loss on examples left out in turn, in closed form"

    @property
    def text_weight_(self) -> float:
        """Share of class names in the answer: beside the heads, and as one example among those of a class."""
        check_is_fitted(self)
        beside = float(self.state_["share"][-1])
        return beside + (1 - beside) * float(self.state_["rows"])

    @property
    def text_why_(self) -> str:
        """Why they count as they do."""
        check_is_fitted(self)
        if self.state_["named"] <= 0:
            return "the examples do not confirm them: names alone label them no better than chance"
        if self.text_weight_ < 0.01:
            return "the examples do better without them"
        return "the examples confirm them"


HOW = {
    "plain": "features",
    "root": "square roots of features",
    "plain+middle": "features of two layers",
    "root+middle": "square roots of features of two layers",
}


def _tried(plans: list[Plan], like: Tensor) -> Tensor:
    """Transform and use of names of each plan, the same for all tasks ``[*b, P, 2]``."""
    table = like.new_tensor([(TRANSFORMS.index(plan.transform), float(plan.names)) for plan in plans])
    return table.expand(*like.shape[:-2], *table.shape)


def _words(blend: tuple[float, ...]) -> str:
    parts = [
        f"{100 * a / sum(blend):.0f} % {name}" for a, name in zip(blend, PARTS, strict=True) if a > 0.005 * sum(blend)
    ]
    return parts[0].removeprefix("100 % ") if len(parts) == 1 else " + ".join(parts)


@dataclass(frozen=True)
class _Choice:
    """The blend of one plan.

    Args:
        gain: what multiplies the logits of each part ``[*b, M]``.
        share: the same before the spread, in units of each part's own, summing to 1 ``[*b, M]``.
        left_out: the blended logits of examples left out ``[*b, N, C]``.
        loss: their log loss ``[*b]``.
        losses, right: log loss and accuracy of each of `BLENDS` ``[B, *b]``.
    """

    gain: Tensor
    share: Tensor
    left_out: Tensor
    loss: Tensor
    losses: Tensor
    right: Tensor

    @classmethod
    def of(cls, plan: Plan, task: Task, y: Tensor, trust: Tensor, blind: Tensor) -> _Choice:
        """Blends weighted by how well they explain the labels ``y``; those with names only where they are trusted."""
        batch = [1] * trust.dim()
        table = y.new_tensor(BLENDS)
        gains = table.T.reshape(len(PARTS), -1, *batch) / plan.sizes[:, None]  # [M, B, *b]
        blended = mask_classes(_blend(plan.left_out[:, None], gains), task.class_mask)
        target = hedged(y, task.class_mask)
        scale, losses = fit_scale(blended, target, task.class_mask)
        losses = losses.masked_fill((table[:, -1] > 0).reshape(-1, *batch) & ~trust, torch.inf)
        weight = (-losses * y.sum((-2, -1))).softmax(0)
        share = (table.T.reshape(len(PARTS), -1, *batch) * weight * scale).sum(1)
        share = share / share.sum(0).clamp_min(1e-30)
        with_names, without = (y.new_tensor(BLIND[named]).reshape(-1, *batch) for named in (True, False))
        usual = torch.where(trust, with_names, without)
        share = torch.where(blind, usual / usual.sum(0), share)
        gain = share / plan.sizes
        left_out = mask_classes(_blend(plan.left_out, gain), task.class_mask)
        t, loss = fit_scale(left_out, target, task.class_mask)
        t = torch.where(blind, torch.where(trust, BLIND_SPREAD[True], BLIND_SPREAD[False]), t)
        return cls(
            (gain * t).movedim(0, -1), share.movedim(0, -1), t[..., None, None] * left_out, loss, losses,
            accuracy(blended, y),
        )  # fmt: skip


def _blend(parts: Tensor, gain: Tensor) -> Tensor:
    """``sum_m gain[m] parts[m]`` of ``[M, …, N, C]`` and ``[M, …]``; what a part in use finds impossible stays so."""
    gain = gain[..., None, None]
    gone = (parts <= lowest(parts) / 2) & (gain > 0)
    total = (gain * torch.where(parts <= lowest(parts) / 2, 0.0, parts)).sum(0)
    return torch.where(gone.any(0), lowest(total), total)


def _at(sets: Tensor, index: Tensor) -> Tensor:
    """``sets[index[b], b]`` of ``[S, *b, …]`` and ``[*b]``."""
    index = index.reshape(1, *index.shape, *[1] * (sets.dim() - 1 - index.dim())).expand(1, *sets.shape[1:])
    return sets.gather(0, index)[0]
