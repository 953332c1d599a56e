"""`Delta`: what was changed about a model, as one set of small tensors with two executions.

delta = Delta.begin(model, [Placed(LoRA(rank=4), Where(("q", "v")))], generator)
with delta.attached(model): train …          # as a branch beside each module, or as W -> f(W)
kept = delta.merge(model)                    # plain weights, as fast as before
kept.undo()                                  # the base again, bit for bit
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from handful.errors import BadInput
from handful.tune.change import Begun, Change, Mode
from handful.tune.modes import in_mode
from handful.tune.sites import Where, as_matrix, from_matrix, is_linear


@dataclass(frozen=True)
class Placed:
    """A change and the sites it is placed at.

    Args:
        change: what happens there.
        where: the sites.
        needed: whether a model without such a site is refused.
    """

    change: Change
    where: Where = field(default_factory=Where)
    needed: bool = True


class Holder(nn.Module):
    """The tensors of one change at one site. Called with a weight it gives f(W), as a parametrisation does."""

    def __init__(
        self,
        change: Change,
        site: str,
        parameter: str,
        begun: Begun,
        module: nn.Module,
        tied: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__()
        self.change, self.site, self.parameter = change, site, parameter
        self.tied = tuple(tied)  # other modules, and what they call the same weight
        self._turn = [module]  # in a list, so that it is no part of this module
        self.merged: weakref.ref[nn.Module] | None = None  # the module whose weight holds it
        for name, tensor in begun.trained.items():
            self.register_parameter(name, nn.Parameter(tensor.detach().clone().contiguous()))
        for name, tensor in begun.fixed.items():
            self.register_buffer(name, tensor.detach().clone().contiguous())

    def touched(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the parameters of ``module`` that it changes."""
        with_bias = self.change.biased and isinstance(getattr(module, "bias", None), Tensor)
        return (self.parameter, "bias") if with_bias else (self.parameter,)

    def places(self, module: nn.Module) -> list[tuple[str, str]]:
        """Every module and its parameter that it changes: those of ``module``, and where else that weight is used."""
        return [*((self.site, name) for name in self.touched(module)), *self.tied]

    def on(self, parameter: str) -> nn.Module:
        """What changes that parameter: this for the one it is made for, a view of it for the bias beside it."""
        return self if parameter == self.parameter else _Bias(self)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, what learns and what does not."""
        return {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}

    def forward(self, weight: Tensor) -> Tensor:
        form = self.change.weight_in_training if self.training else self.change.weight
        matrix = form(as_matrix(self._turn[0], weight), self.tensors)
        return from_matrix(self._turn[0], matrix, weight.shape)

    def hook(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The branch, as a forward hook."""
        return self.change.branch(args[0], output, module, self.tensors)


class _Bias(nn.Module):
    """A `Holder` called with the bias that stands beside its weight."""

    def __init__(self, holder: Holder) -> None:
        super().__init__()
        self._holder = [holder]  # in a list, so that its tensors are counted once

    def forward(self, bias: Tensor) -> Tensor:
        return self._holder[0].change.bias(bias, self._holder[0].tensors)


class Delta(nn.Module):
    """Changes at the sites of one model; ``holders`` in the order in which they apply.

    Args:
        holders: one a change and site.
        fingerprint: of the weights they change, see `fingerprint_of`.
    """

    def __init__(self, holders: Sequence[Holder], fingerprint: str) -> None:
        super().__init__()
        self.holders = nn.ModuleList(holders)
        self.fingerprint = fingerprint
        self.eval()

    @classmethod
    def begin(cls, model: nn.Module, placed: Sequence[Placed], generator: torch.Generator) -> Delta:
        """A delta that has learnt nothing yet.

        Args:
            model: whose sites are found; it is not changed.
            placed: changes, in the order in which they apply.
            generator: of random beginnings.

        Raises:
            BadInput: no site fits; a setting fits no weight; a weight holds what is no number, or is tied to another.
        """
        holders: list[Holder] = []
        first: dict[tuple[Change, str], nn.Parameter] = {}
        for one in placed:
            shared: set[tuple[str, str]] = set()
            for site in one.where.find(model, one.needed):
                if (site.name, one.where.parameter) in shared:
                    continue  # changed already, under the name of another module
                module = model.get_submodule(site.name)
                weight = _whole(module, one.where.parameter, site.name)
                tied = _others(model, weight, site.name) if one.where.tied else []
                shared.update(tied)
                try:
                    begun = one.change.begin(as_matrix(module, weight), generator)
                except BadInput as error:
                    raise BadInput(f"{site.name}: {error}") from error
                holders.append(Holder(one.change, site.name, one.where.parameter, begun, module, tied))
                for name in one.change.shared:
                    common = first.setdefault((one.change, name), holders[-1].get_parameter(name))
                    holders[-1].register_parameter(name, common)
        _refuse_tied(model, holders)
        return cls(holders, fingerprint_of(model, holders))

    @contextmanager
    def attached(self, model: nn.Module, mode: Mode = "branch") -> Iterator[None]:
        """``model`` with the changes inside the block; outside it is as it was, bit for bit.

        Args:
            model: the one they were made for, or an equal one.
            mode: ``"branch"`` runs changes beside their modules where they have such a form and the module is a linear
                map, the others as weights; ``"weight"`` runs all as weights.

        Raises:
            BadInput: a change has no such form, or not in training; the model is another, or changed already, by
                `merge` or otherwise.
        """
        handles, made = [], []
        modes = [(holder, holder.training) for holder in self.each()]  # a parametrization takes that of its module
        try:
            for holder, use in zip(self.each(), self._uses(model, mode), strict=True):
                module = _module(model, holder)
                if holder.merged is not None and holder.merged() is module:
                    raise BadInput(f"these changes are in the weight of {holder.site} already; undo the merge first")
                holder.change.check(use, module.training and torch.is_grad_enabled())
                if use == "branch":
                    if any(getattr(hook, "__self__", None) is holder for hook in module._forward_hooks.values()):
                        raise BadInput(f"these changes are attached to {holder.site} already; they would count twice")
                    handles.append(module.register_forward_hook(holder.hook))
                    continue
                for site, parameter in holder.places(module):
                    key = (model.get_submodule(site), parameter)
                    if parametrize.is_parametrized(*key) and key not in made:
                        raise BadInput(f"{site}.{parameter} is changed already; take that change off first")
                    own = holder.training
                    parametrize.register_parametrization(*key, holder.on(parameter), unsafe=True)
                    holder.train(own)  # which that takes from the module: mixout would end with the model's dropout
                    made.append(key)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, parameter in dict.fromkeys(made):
                parametrize.remove_parametrizations(module, parameter, leave_parametrized=False)
            for holder, before in modes:
                holder.training = before

    @torch.no_grad()
    def merge(self, model: nn.Module) -> Merged:
        """Write the changes into the weights of ``model``, in place.

        Raises:
            BadInput: a change has no weight form; the weights are not those that it was made for.
        """
        self.check_base(model)
        for holder in self.each():
            holder.change.check("weight", training=False)
        kept: dict[tuple[str, str], Tensor] = {}
        made: dict[tuple[str, str], Tensor] = {}
        with in_mode(False, self):  # what training draws is not for keeping
            for holder in self.each():
                module = _module(model, holder)
                for name in holder.touched(module):
                    was = kept.setdefault((holder.site, name), getattr(module, name).detach().clone())
                    # Several changes add up in single precision, and are rounded to the weight's own once.
                    wide = was.float() if was.dtype in (torch.float16, torch.bfloat16) else was
                    made[holder.site, name] = holder.on(name)(made.get((holder.site, name), wide))
        for (site, name), value in made.items():
            getattr(model.get_submodule(site), name).copy_(value)
        for holder in self.each():
            holder.merged = weakref.ref(_module(model, holder))
        return Merged(model, kept, tuple(self.each()))

    @classmethod
    def joined(cls, model: nn.Module, deltas: Sequence[Delta]) -> Delta:
        """Several as one, in their order: each was made for ``model`` with those before it merged into it."""
        holders = [holder for delta in deltas for holder in delta.each()]
        return cls(holders, fingerprint_of(model, holders))

    def _uses(self, model: nn.Module, mode: Mode) -> list[Mode]:
        """How each holder is executed; what must be in the weight for a later one to be right is a weight too."""
        uses: list[Mode] = []
        below: set[str] = set()
        for holder in reversed(list(self.each())):
            modes = holder.change.modes
            linear = holder.parameter == "weight" and not holder.tied and is_linear(_module(model, holder))
            beside = "weight" not in modes or (linear and holder.site not in below)
            use: Mode = "branch" if mode == "branch" and "branch" in modes and beside else "weight"
            if use == "weight" or holder.change.reads:
                below.add(holder.site)
            uses.append(use)
        return uses[::-1]

    def check_base(self, model: nn.Module) -> None:
        """Raise `BadInput` when ``model`` is not the one that this was made for."""
        found = fingerprint_of(model, list(self.each()))
        if found != self.fingerprint:
            raise BadInput(
                f"these changes belong to a model with the fingerprint {self.fingerprint[:16]}…, not to this one "
                f"({found[:16]}…)"
            )

    def stored(self, model: nn.Module) -> Delta:
        """Without the changes that leave their place in ``model`` as it is (`Change.idle`): the same answers."""
        holders = [holder for holder in self.each() if not holder.change.idle(holder.tensors)]
        return Delta(holders, fingerprint_of(model, holders)) if len(holders) < len(self.holders) else self

    def trainable(self) -> int:
        """How many numbers learn."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def placed(self) -> list[Placed]:
        """The changes and the very sites they are at, for files."""
        out: list[Placed] = []
        for holder in self.each():
            last = out[-1] if out else None
            same = last and (last.where.parameter, last.where.tied) == (holder.parameter, bool(holder.tied))
            if last and same and last.change == holder.change and holder.site not in last.where.sites:
                out[-1] = Placed(holder.change, replace(last.where, sites=(*last.where.sites, holder.site)))
            else:
                where = Where((), holder.parameter, sites=(holder.site,), tied=bool(holder.tied))
                out.append(Placed(holder.change, where))
        return out

    def each(self) -> Iterator[Holder]:
        """The holders, in their order."""
        for holder in self.holders:
            assert isinstance(holder, Holder)
            yield holder


@dataclass(frozen=True)
class Merged:
    """A model whose weights hold the changes, what they were before, by module and parameter, and the changes."""

    model: nn.Module
    kept: dict[tuple[str, str], Tensor]
    holders: tuple[Holder, ...] = ()

    @torch.no_grad()
    def undo(self) -> None:
        """Put the weights back, bit for bit."""
        for (site, parameter), weight in self.kept.items():
            getattr(self.model.get_submodule(site), parameter).copy_(weight)
        for holder in self.holders:
            holder.merged = None


def attached(delta: Delta | None, model: nn.Module) -> AbstractContextManager[None]:
    """`Delta.attached`; of ``None`` nothing, the model as it is."""
    return nullcontext() if delta is None else delta.attached(model)


def fingerprint_of(model: nn.Module, holders: Sequence[Holder]) -> str:
    """A hash of the weights at the sites of ``holders``: their names, shapes and bits, as float32."""
    digest = hashlib.sha256()
    touched = {(h.site, name) for h in holders for name in h.touched(_module(model, h))}
    for site, parameter in sorted(touched):
        weight = _original(model.get_submodule(site), parameter)
        digest.update(f"{site}.{parameter} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _original(module: nn.Module, parameter: str) -> Tensor:
    if parametrize.is_parametrized(module, parameter):
        return cast(Tensor, module.parametrizations[parameter].original)  # type: ignore[union-attr, index]
    return cast(Tensor, getattr(module, parameter))


def _module(model: nn.Module, holder: Holder) -> nn.Module:
    try:
        return model.get_submodule(holder.site)
    except AttributeError as error:
        raise BadInput(f"the model has no {holder.site}; these changes belong to another") from error


def _whole(module: nn.Module, parameter: str, site: str) -> Tensor:
    if parametrize.is_parametrized(module, parameter):
        raise BadInput(f"{site}.{parameter} is changed already; take that change off first")
    weight: Tensor = getattr(module, parameter)
    if not weight.is_floating_point():
        raise BadInput(f"{site}.{parameter} is {weight.dtype}, a quantised weight; dequantise it first")
    if not bool(torch.isfinite(weight).all()):
        raise BadInput(f"{site}.{parameter} holds NaN or infinity")
    return weight


def _others(model: nn.Module, weight: Tensor, site: str) -> list[tuple[str, str]]:
    """Modules besides ``site`` that have this very weight, and what they call it."""
    named = ((name.rpartition("."), one) for name, one in model.named_parameters(remove_duplicate=False))
    return [(module, parameter) for (module, _, parameter), one in named if one is weight and module != site]


def _refuse_tied(model: nn.Module, holders: Sequence[Holder]) -> None:
    """Raise `BadInput` where a weight to be changed is another module's too: it would change there unseen."""
    modules = [(model.get_submodule(holder.site), holder) for holder in holders if not holder.tied]
    chosen = {id(_original(module, name)) for module, holder in modules for name in holder.touched(module)}
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        key = id(parameter)
        if key in chosen and seen.setdefault(key, name) != name:
            raise BadInput(f"{seen[key]} and {name} are one weight (tied); choose sites without it")
