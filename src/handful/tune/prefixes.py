"""eTT: a prefix of each class in every block of a vision transformer, made from what its images attend to.

Xu, Yang, Wang, Wang, Fu, Xue, "Exploring Efficient Few-shot Adaptation for Vision Transformers", 2022, as paper 111
(Luo et al., "A Closer Look at Few-shot Classification Again", 2023) has it:

    start       u_c = unit mean over the class of unit(mean over heads of sum_t softmax_t(q_cls . k_t) e_t)
                e_t the patches before the first block, attention that of the last, over the patches alone
    prefix      [K_l, V_l]_c = W2 tanh(W1 u_c + b1) + b2 for each block l, in front of its keys and values
    offsets     a vector is added to what attention and what the feed-forward map of each block give
    loss        `NearestLoss` + 0.1 CE(softmax((P unit(u_start) - m) / 0.04), softmax(P unit(u) / 0.1)),  P [64, d]
                learns; m is a running mean (0.9) of the first, through which no gradient goes
    answer      nearest class mean of B f(x)

Attention with a prefix is worked out at the input of the block's output map from what the maps of query, key and value
gave, so that any transformer with these four maps and nothing between them and attention will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.errors import BadInput
from handful.tune.closer_look import stage
from handful.tune.delta import Placed
from handful.tune.nearest import BATCH, NearestClass, NearestLoss
from handful.tune.own import Own
from handful.tune.prompting import everything
from handful.tune.recipe import Data, Recipe, Seen
from handful.tune.sites import Where, blocks_of, sites

PROJECTED = 64
TEACHER, STUDENT, KEPT = 0.04, 0.1, 0.9


class Block(NamedTuple):
    """The names of the four maps of attention in a block."""

    q: str
    k: str
    v: str
    o: str


def attention_of(model: nn.Module) -> tuple[list[Block], int]:
    """The maps of every block, and how many heads there are. Raises `BadInput` for a model without."""
    found: dict[int, dict[str, str]] = {}
    for site in sites(model):
        if site.block is not None and site.role in Block._fields:
            found.setdefault(site.block, {})[site.role] = site.name
    heads = next((int(h) for m in model.modules() if (h := _heads(m)) is not None), None)
    if not found or any(len(maps) < 4 for maps in found.values()) or heads is None:
        raise BadInput(
            "prefixes need a transformer with maps of query, key, value and output in each block (ViT, DINO)"
        )
    return [Block(**found[block]) for block in sorted(found)], heads


def _heads(module: nn.Module) -> Any:
    return getattr(getattr(module, "config", None), "num_attention_heads", None)


@contextmanager
def kept_outputs(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What modules gave when they were called last, by name, inside the block."""
    out: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, args, y: out.__setitem__(name, y)

    with ExitStack() as stack:
        for name in names:
            stack.callback(model.get_submodule(name).register_forward_hook(keep(name)).remove)
        yield out


def _heads_apart(x: Tensor, heads: int) -> Tensor:
    """``[n, T, h, d / h]`` of ``[n, T, d]``."""
    return x.reshape(*x.shape[:-1], heads, -1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention ``[n, T, d]`` of queries ``[n, T, d]`` to keys and values ``[n, S, d]``."""
    q, k, v = (_heads_apart(x, heads).transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Prefixes(NearestClass):
    """See `handful.tune.prefixes`. The first token of the model is that of the class.

    Attributes (after ``begin``):
        start: of the prefixes ``[C, d]``.
        u: the prefixes.
        narrow, wide: the network that makes keys and values of them.
        projector: P; ``centre`` is m.
    """

    start: Tensor
    centre: Tensor
    u: nn.Parameter

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        """Raises `BadInput` for a model whose attention is not that of the four maps alone."""
        self.blocks, self.heads = attention_of(model)
        attended = [self._attended(model, data.take(some)) for some in torch.split(torch.arange(len(data)), BATCH)]
        each = functional.normalize(torch.cat(attended), dim=-1)
        self.register_buffer("start", functional.normalize(data.weighted.mT.to(each) @ each, dim=-1))
        width = self.start.shape[1]
        self.register_buffer("centre", self.start.new_zeros(1, PROJECTED))
        self.u = nn.Parameter(self.start.clone())
        self.narrow = _linear(width, width // 2, self.start, generator)
        self.wide = _linear(width // 2, 2 * len(self.blocks) * width, self.start, generator)
        self.projector = _linear(width, PROJECTED, self.start, generator)
        super().begin(model, data, generator)

    def look(self, model: nn.Module, inputs: Any) -> Tensor:
        """Features ``[n, d]`` with the prefixes in every block."""
        made = self.wide(torch.tanh(self.narrow(self.u)))  # [C, L 2 d]
        prefixes = made.reshape(len(made), len(self.blocks), 2, -1).permute(1, 2, 0, 3)  # [L, 2, C, d]
        maps = [name for block in self.blocks for name in (block.q, block.k, block.v)]
        with kept_outputs(model, maps) as seen, ExitStack() as stack:
            for block, prefix in zip(self.blocks, prefixes, strict=True):
                hook = _with_prefix(seen, block, prefix, self.heads)
                stack.callback(model.get_submodule(block.o).register_forward_pre_hook(hook).remove)
            return model(inputs)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _attended(self, model: nn.Module, inputs: Any) -> Tensor:
        """What the class token of the last block attends to, before the first ``[n, d]``."""
        last, first, came = self.blocks[-1], model.get_submodule(blocks_of(model)[0]), dict[str, Tensor]()

        def tokens(module: nn.Module, args: tuple[Any, ...], more: dict[str, Any]) -> None:
            came["tokens"] = args[0] if args else more["hidden_states"]

        def attention(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            came["attention"] = args[0]

        with kept_outputs(model, [last.q, last.k, last.v]) as seen, ExitStack() as stack:
            stack.callback(first.register_forward_pre_hook(tokens, with_kwargs=True).remove)
            stack.callback(model.get_submodule(last.o).register_forward_pre_hook(attention).remove)
            model(inputs)
        q, k, v = (seen[name] for name in (last.q, last.k, last.v))
        own = attend(q, k, v, self.heads)
        if own.shape != came["attention"].shape or not torch.allclose(own, came["attention"], atol=1e-4, rtol=1e-3):
            raise BadInput("attention of this model is not that of its maps alone (a mask, rotations): no prefix fits")
        q, k = _heads_apart(q, self.heads), _heads_apart(k, self.heads)
        logits = torch.einsum("nhe,nthe->nht", q[:, 0], k[:, 1:]) / q.shape[-1] ** 0.5
        return torch.einsum("nht,ntd->nd", logits.softmax(-1), came["tokens"][:, 1:]) / self.heads


def _with_prefix(seen: dict[str, Tensor], block: Block, prefix: Tensor, heads: int) -> Any:
    """A hook before the output map: what reaches it, with ``prefix [2, C, d]`` in front of keys and values."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        q, k, v = (seen[name] for name in (block.q, block.k, block.v))
        keys, values = (torch.cat([p.expand(len(x), -1, -1), x], 1) for p, x in zip(prefix, (k, v), strict=True))
        return (attend(q, keys, values, heads), *args[1:])

    return hook


def _linear(into: int, out: int, like: Tensor, generator: torch.Generator) -> nn.Linear:
    """As ``nn.Linear`` begins."""
    made = nn.Linear(into, out, dtype=like.dtype, device=like.device)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) / math.sqrt(into))
    return made


@dataclass(frozen=True)
class NearStart:
    """Holds the prefixes near where they began; see `handful.tune.prefixes`.

    Args:
        weight: of it in the loss.
    """

    weight: float = 0.1
    name = "near-start"
    separable = True

    def __call__(self, seen: Seen) -> Tensor:
        readout = seen.read_by(Prefixes)
        student = readout.projector(functional.normalize(readout.u, dim=-1)) / STUDENT
        with torch.no_grad():
            teacher = readout.projector(functional.normalize(readout.start, dim=-1))
            teacher = ((teacher - readout.centre) / TEACHER).softmax(-1)
            readout.centre.mul_(KEPT).add_((1 - KEPT) * teacher.mean(0, keepdim=True))
        loss: Tensor = -self.weight * (teacher * student.log_softmax(-1)).sum(-1).mean()
        return loss


@dataclass(frozen=True)
class ETT:
    """Prefixes of the classes, offsets and B.

    Args:
        backbone_lr: rate of prefixes, of the networks beside them, and of what is changed of the encoder.
        head_lr: rate of B.
        epochs: passes over the support.
        whole: whether every parameter of the encoder learns, as in paper 111, or the offsets alone, as in eTT's.
    """

    backbone_lr: float = 0.05
    head_lr: float = 0.1
    epochs: int = 20
    whole: bool = True

    def recipe(self, model: nn.Module) -> Recipe:
        """See `handful.tune.closer_look.Method`."""
        if not self.backbone_lr > 0:
            raise BadInput("eTT learns prefixes at the rate of the backbone, which must be above 0")
        gain = math.sqrt(self.head_lr / self.backbone_lr)
        changes = everything(model) if self.whole else (Placed(Own(), Where(("o", "down"), "bias")),)
        how = stage(self.backbone_lr, self.backbone_lr, self.epochs)
        objectives = (NearestLoss(), NearStart())
        return Recipe(changes, objectives, (how,), readout=lambda: Prefixes(gain=gain))
