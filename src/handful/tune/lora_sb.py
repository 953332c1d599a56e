"""148 LoRA-SB: Initialization using Update Approximation is a Silver Bullet for Extremely Efficient Low-Rank
Fine-Tuning, 2024. Only r^2 numbers a weight learn, between two fixed bases, which are those of the first full step.

    f(W) = W + s B R A       B [out, r], A [r, in] fixed;  R [r, r] learns
    D    = -eta sign(G)      the first step of AdamW, G the gradient of W over some examples
    D    ~ U S V^T           B = U_r,  A = V_r^T,  R = diag(S_r) / s: the best of rank r (Eckart and Young)

What dR does to W is s B dR A. Its best fit to a full gradient g is X = (B^T B)^-1 g_R (A A^T)^-1 / s^2, where
g_R = s B^T g A^T is the gradient of R; with orthonormal bases and s = 1 this is g_R itself: no scale need be chosen.

LoRA-XS is the same form on the bases of W itself: W = U S V^T, B = U_r S_r, A = V_r^T, R of deviation 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode, Tensors, checked_rank, register
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.fillers import Linear, Shuffled
from handful.tune.pace import rate_at
from handful.tune.recipe import Data, Readout, Recipe, Stage
from handful.tune.sites import Where, as_matrix


@register
@dataclass(frozen=True)
class BRA(Change):
    """See `handful.tune.lora_sb`.

    Args:
        rank: r.
        scale: s.
        basis: ``"random"`` orthonormal bases with R = 0, which is what `FirstStep` begins from; ``"weight"`` those of
            the weight (LoRA-XS).
        precondition: turn the gradient of R into X, for bases that are not orthonormal or s other than 1.
        dropout: share of what goes into A that is left out in training.
    """

    key: ClassVar[str] = "bra"
    rank: int = 24
    scale: float = 1.0
    basis: Literal["random", "weight"] = "random"
    precondition: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.basis not in ("random", "weight"):
            raise BadInput(f"basis is 'random' or 'weight', not {self.basis!r}")
        if not 0 < self.scale < math.inf or self.rank < 1 or not 0 <= self.dropout < 1:
            raise BadInput(f"scale and rank must be positive, dropout a share below 1: {self}")

    def begin(self, weight: Tensor, generator: torch.Generator) -> Begun:
        checked_rank(self.rank, weight)
        r, (out, into) = self.rank, weight.shape
        if self.basis == "weight":
            u, s, vt = torch.linalg.svd(weight.detach().float(), full_matrices=False)
            drawn = 1e-5 * torch.randn(r, r, generator=generator)
            return Begun({"R": drawn.to(weight)}, {"B": (u[:, :r] * s[:r]).to(weight), "A": vt[:r].to(weight)})
        b = torch.linalg.qr(torch.randn(out, r, generator=generator))[0]
        a = torch.linalg.qr(torch.randn(into, r, generator=generator))[0].mT
        return Begun({"R": weight.new_zeros(r, r)}, {"B": b.to(weight), "A": a.to(weight)})

    def weight(self, w: Tensor, t: Tensors) -> Tensor:
        return w + self.scale * (t["B"] @ self._core(t) @ t["A"])

    def branch(self, x: Tensor, y: Tensor, module: nn.Module, t: Tensors) -> Tensor:
        x = functional.dropout(x, self.dropout, module.training)
        return y + self.scale * functional.linear(
            functional.linear(functional.linear(x, t["A"]), self._core(t)), t["B"]
        )

    def check(self, mode: Mode, training: bool) -> None:
        super().check(mode, training)
        if mode == "weight" and training and self.dropout:
            raise BadInput("dropout on the branch has no weight form; train with mode='branch' or dropout=0")

    def _core(self, t: Tensors) -> Tensor:
        """R, with X as its gradient where that is asked for."""
        r, b, a = t["R"], t["B"], t["A"]
        if self.precondition and r.requires_grad:
            r = r.view_as(r)
            left, right = torch.linalg.inv(b.mT @ b), torch.linalg.inv(a @ a.mT)
            r.register_hook(lambda g: left @ g @ right / self.scale**2)  # type: ignore[no-untyped-call]
        return r


@dataclass(frozen=True)
class FirstStep:
    """Puts every `BRA` where the first full step would be: fills the slot `start`.

    Dropout inside the model is off meanwhile, so that the gradient is that of the examples. At any time one weight's
    gradient is held beside the sums, which are on the CPU.

    Args:
        stage: whose first learning rate is eta, that of the first step of the warm-up.
        examples: how many rows G is taken over, drawn at random.
        batch: rows at a time.
        sign: the step of AdamW; without it that of plain descent.
        eta: length of the step, in place of the stage's.
        seed: of the draw.
    """

    stage: Stage
    examples: int = 50
    batch: int = 16
    sign: bool = True
    eta: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.examples < 1 or self.batch < 1 or (self.eta is not None and not self.eta > 0):
            raise BadInput("examples, batch and eta must be positive")

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        holders = [h for h in delta.holders if isinstance(h, Holder) and isinstance(h.change, BRA)]
        if not holders:
            raise BadInput("there is no change 'bra' that a first step could be put into")
        if self.eta is None:
            epochs, batch = self.stage.epochs, self.stage.batch
            steps = Shuffled().steps(data, epochs, batch) if epochs is not None else self.stage.steps or 1
        eta = rate_at(self.stage, steps, 0) if self.eta is None else self.eta
        if not eta > 0:
            raise BadInput("the first learning rate is 0, so that there is no first step")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))[: self.examples]
        sums = gradients(model, [(h.site, h.parameter) for h in holders], torch.split(order, self.batch), loss)
        for holder in holders:
            g = as_matrix(model.get_submodule(holder.site), sums[holder.site])
            if not bool(torch.isfinite(g).all()):
                raise BadInput(f"the gradient of {holder.site} holds NaN or infinity; look at the examples")
            if not g.any():
                raise BadInput(f"the gradient of {holder.site} is zero: it does not matter to the loss; leave it out")
            bra = holder.change
            assert isinstance(bra, BRA)
            b, r, a = factors(-eta * (g.sign() if self.sign else g), bra.rank)
            with torch.no_grad():
                for name, tensor in (("B", b), ("R", r / bra.scale), ("A", a)):
                    holder.tensors[name].copy_(tensor)


def factors(d: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """``U_r``, ``diag(S_r)`` and ``V_r^T`` of ``d [out, in]``, by the exact decomposition."""
    u, s, vt = torch.linalg.svd(d.float(), full_matrices=False)
    return u[:, :rank], s[:rank].diag(), vt[:rank]


def gradients(
    model: nn.Module, sites: list[tuple[str, str]], batches: tuple[Tensor, ...], loss: Callable[[Any], Tensor]
) -> dict[str, Tensor]:
    """By site the mean gradient of ``loss`` over all rows, on the CPU; one weight's at a time leaves the device."""
    total = sum(map(len, batches))
    sums: dict[str, Tensor] = {}
    weights = {site: model.get_submodule(site).get_parameter(parameter) for site, parameter in sites}
    learnt = {site: weight.requires_grad for site, weight in weights.items()}
    share = 0.0

    def collect(site: str) -> Callable[[Tensor], None]:
        def take(weight: Tensor) -> None:
            assert weight.grad is not None
            sums[site] = sums.get(site, 0) + share * weight.grad.float().cpu()
            weight.grad = None

        return take

    hooks = []
    try:
        for site, weight in weights.items():
            sums[site] = torch.zeros(weight.shape)
            weight.requires_grad_(True)
            hooks.append(weight.register_post_accumulate_grad_hook(collect(site)))  # type: ignore[no-untyped-call]
        for rows in batches:
            share = len(rows) / total
            torch.autograd.backward(loss(rows), inputs=list(weights.values()))
    finally:
        for hook in hooks:
            hook.remove()
        for site, weight in weights.items():
            weight.requires_grad_(learnt[site])
    return sums


@dataclass(frozen=True)
class LoRASB:
    """Only rank x rank numbers a map, between bases of the first full step (148), as in the authors' runs on GLUE.

    Args:
        rank: r.
        lr: of R and of the readout; the paper tries 1e-4, 5e-4, 1e-3, 5e-3.
        epochs, batch, warmup: of AdamW with a linear decay.
        examples: rows for the first step; 2 on GLUE, 50 for language models.
        roles: which maps change: query, value, and the second maps of attention and feed-forward.
        eta: length of the first step; by default the first rate of the warm-up. The authors' warm-ups have a hundred
            steps and more. In a run of a few dozen steps that rate is many times as long, and at a high ``lr`` it
            leads away from what the model knows: give 1e-4 then.
    """

    rank: int = 24
    lr: float = 1e-3
    epochs: float = 30
    batch: int = 128
    warmup: float = 0.06
    examples: int = 50
    roles: tuple[str, ...] = ("q", "v", "o", "down")
    eta: float | None = None

    def recipe(self) -> Recipe:
        """As slots."""
        stage = Stage(epochs=self.epochs, lr=self.lr, batch=self.batch, warmup=self.warmup, weight_decay=0.01)
        return Recipe(
            changes=(Placed(BRA(self.rank), Where(self.roles)),),
            stages=(stage,),
            readout=Linear,
            start=FirstStep(stage, self.examples, eta=self.eta),
        )
