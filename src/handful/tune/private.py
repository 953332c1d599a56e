"""An encoder tuned with differential privacy: scale and shift of its normalisations, and a linear head.

Paper 003: Tobaben, Shysheya, Bronskill, Paverd, Tople, Zanella-Béguelin, Turner, Honkela, "On the Efficacy of
Differentially Private Few-shot Image Classification", 2023. DP-SGD (Abadi et al. 2016) over the head (from zero) and
what else learns, at each step over the examples that a coin of q = B / n lets join:

    g_i = the gradient of example i by itself, of all that learns together
    G   = (sum_i g_i min(1, C / |g_i|) + sigma C N(0, 1)) / B

What learns beside the head: nothing ("head"); scale and shift of normalisations ("film"); everything ("all").
Normalisations over the batch keep their statistics, which come from other data. One example at a time is read, so that
nothing of another one can be in its gradient.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.core.privacy import Budget, PrivacySpent
from handful.core.train import SGD, Adam, Update
from handful.errors import BadInput, HandfulError
from handful.protocols import Progress
from handful.tune.class_texts import refuse_empty
from handful.tune.delta import Delta, Placed
from handful.tune.fillers import Linear
from handful.tune.modes import in_mode
from handful.tune.own import Own
from handful.tune.prompting import everything
from handful.tune.recipe import Data, Readout
from handful.tune.sites import Where, named, sites
from handful.tune.tuned import Tuned


class FromZero(Linear):
    """``W h / |h| + b``, from zero; h as it is unless ``normalize``."""

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            like = model(data.take(torch.arange(1)))
        self.weight = nn.Parameter(like.new_zeros(len(data.classes), like.shape[-1]))
        self.bias = nn.Parameter(like.new_zeros(len(data.classes)))

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        return super().forward(functional.normalize(features, dim=-1) if self.normalize else features, model)


@dataclass
class PrivatelyTuned(Tuned):
    """What came out, and what it spent: see `PrivacySpent`."""

    spent: PrivacySpent | None = None


@dataclass(frozen=True)
class PrivateTuning:
    """DP-SGD of a head and, with it, of some of the encoder; see `handful.tune.private`.

    The defaults are those of the paper where it does not search; a search would have to be paid for.

    Args:
        trains: what learns beside the head.
        norms: a regular expression searched in the names of the normalisations that learn, all by default;
            ``"gn3$|[.]gn$"`` are those of the authors' ResNets.
        epsilon, delta, max_grad_norm, epochs, batch_size, lr, optimizer: see `handful.core.privacy.Budget`.
        encoder_lr: of what learns beside the head, where it differs. Its many numbers get as much noise each as those
            of the head.
        normalize: give the head unit features.
        noise: ``"system"``; ``"seeded"`` takes that of ``seed`` for studies: it is not private.
        seed: see ``noise``.
    """

    trains: Literal["head", "film", "all"] = "film"
    norms: str | None = None
    epsilon: float | None = 1.0
    delta: float | Literal["1/n"] = "1/n"
    max_grad_norm: float = 1.0
    epochs: int = 400
    batch_size: int | None = 200
    lr: float = 3e-3
    encoder_lr: float | None = None
    optimizer: Literal["adam", "sgd"] = "adam"
    normalize: bool = True
    noise: Literal["system", "seeded"] = "system"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.trains not in ("head", "film", "all"):
            raise BadInput(f"trains is one of 'head', 'film', 'all', not {self.trains!r}")
        if self.noise == "system" and self.seed is not None:
            raise BadInput("private noise takes no seed: leave it out, or give noise='seeded', which is not private")
        if self.encoder_lr is not None and not self.encoder_lr >= 0:
            raise BadInput(f"encoder_lr must not be negative, not {self.encoder_lr!r}")
        assert self._budget  # which refuses what makes no sense

    def plan(self, n: int) -> PrivacySpent:
        """What tuning on n examples spends; see `Budget.plan`."""
        return self._budget.plan(n)

    def fit(self, model: nn.Module, data: Data, progress: Progress | None = None) -> PrivatelyTuned:
        """Tune; ``model`` is as it was afterwards, bit for bit. Warns where nothing is promised, or little.

        Args:
            model: gives features ``[n, d]``.
            data: an item is an example.
            progress: called with (steps done, steps in all).

        Raises:
            BadInput: fewer than two examples, a class without one, a model that looks at its batch, no accountant.
            HandfulError: the gradient of an example is no number.
        """
        if len(data) < 2:
            raise BadInput("privacy needs at least two examples to hide one")
        refuse_empty(data)
        refuse_batch_statistics(model)
        spent = self.plan(len(data))
        if said := spent.warning(chosen=self.delta != "1/n"):
            warnings.warn(said, UserWarning, stacklevel=2)
        drawn = torch.Generator().manual_seed(0)  # nothing is drawn from it: all begins as it is, or at zero
        readout, delta = FromZero(self.normalize), Delta.begin(model, self._changes(model), drawn)
        frozen = [(p, p.requires_grad) for p in model.parameters()]
        try:
            for parameter, _ in frozen:
                parameter.requires_grad_(False)
            with in_mode(False, model):
                readout.begin(model, data, drawn)
                with delta.attached(model, "weight"):
                    self._descend(model, readout, delta, data, spent, progress)
        finally:
            for parameter, needed in frozen:
                parameter.requires_grad_(needed)
        return PrivatelyTuned(model, delta, readout.eval(), data.classes, spent=spent)

    def _descend(
        self,
        model: nn.Module,
        readout: Readout,
        delta: Delta,
        data: Data,
        spent: PrivacySpent,
        progress: Progress | None,
    ) -> None:
        """All steps; moves the numbers of ``delta`` and ``readout``."""
        source = self._budget.source(self.seed or 0)
        encoder_lr = self.lr if self.encoder_lr is None else self.encoder_lr
        parts = [(list(delta.parameters()), self._update(), encoder_lr)]
        parts += [(list(readout.parameters()), self._update(), self.lr)]
        for step in range(spent.steps):
            rows = torch.arange(len(data))
            if spent.sampling_rate < 1:
                rows = rows[source.uniform(len(data)) < spent.sampling_rate]
            total = self._clipped(model, readout, data, rows, [p for some, _, _ in parts for p in some])
            for g in total:
                if spent.sigma:
                    g += spent.sigma * spent.max_grad_norm * source.normal(*g.shape).to(g)
                g /= spent.sampling_rate * len(data)
            left = iter(total)
            for some, update, rate in parts:
                update([p.data for p in some], tuple(next(left).to(p) for p in some), rate)
            if progress is not None:
                progress(step + 1, spent.steps)

    def _update(self) -> Update:
        return Adam() if self.optimizer == "adam" else SGD()

    def _clipped(
        self, model: nn.Module, readout: Readout, data: Data, rows: Tensor, parameters: list[Any]
    ) -> list[Tensor]:
        """``sum_i g_i min(1, C / |g_i|)`` in double precision; an example of weight w has w times the gradient."""
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for row in torch.split(rows, 1):
            with torch.enable_grad():
                logits = readout(readout.look(model, data.take(row)), model)
                loss = -(data.targets[row] * logits.log_softmax(-1)).sum()
            each = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            weight = 1.0 if data.weight is None else float(data.weight[row])
            length = weight * float(torch.stack([g.double().square().sum() for g in each]).sum().sqrt())
            if not math.isfinite(length):  # nothing hides what makes all numbers NaN
                raise HandfulError(f"the gradient of example {int(row)} is no number: look at it, or lower lr")
            share = weight * min(1.0, self.max_grad_norm / max(length, 1e-30))
            for g, one in zip(total, each, strict=True):
                g.add_(one.double(), alpha=share)
        return total

    def _changes(self, model: nn.Module) -> tuple[Placed, ...]:
        if self.trains == "head":
            return ()
        if self.trains == "all":
            return everything(model)
        return tuple(
            Placed(Own(), Where((), kind, sites=tuple(names)))
            for kind, names in _by_kind(film_parameters(model, self.norms)).items()
        )

    @property
    def _budget(self) -> Budget:
        return Budget(**{field.name: getattr(self, field.name) for field in fields(Budget)})


def film_parameters(model: nn.Module, norms: str | None = None) -> tuple[str, ...]:
    """Names of the scales and shifts of the normalisations of ``model``, in its order.

    Args:
        model: any module.
        norms: a regular expression searched in the names of the normalisations, all by default.

    Raises:
        BadInput: there is none; the expression is none.
    """
    fits = named("norms", norms or "").search
    found = [site.name for site in sites(model) if site.role == "norm" and fits(site.name)]
    if not found:
        raise BadInput(f"the model has no normalisation{f' that fits {norms!r}' if norms else ''} that could learn")
    return tuple(
        f"{name}.{kind}" for name in found for kind, _ in model.get_submodule(name).named_parameters(recurse=False)
    )


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise `BadInput` where a normalisation looks at other examples: there is no gradient of one by itself."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        why = (
            "is in training mode: call model.eval(), which keeps its statistics as they are" if module.training else ""
        )
        why = why if module.running_mean is not None else "has no statistics of its own"
        if why:
            raise BadInput(f"{name} normalises over the batch and {why}; or put a GroupNorm in its place")


def _by_kind(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Sites by the name of their parameter."""
    out: dict[str, list[str]] = {}
    for name in names:
        site, _, kind = name.rpartition(".")
        out.setdefault(kind, []).append(site)
    return out
