"""Where an encoder can be changed: the only file that knows architectures.

A site is a module of the model under the role it plays in its transformer block:

    q k v o            the four maps of attention; `qkv` where the first three are one map (GPT-2)
    up gate down       the feed-forward map: down(act(gate x) * up x), or down(act(up x))
    norm               scale and shift of a normalisation
    embedding position the tables of words and of places
    projection         the last map of a tower into the space that two towers share

What role a module plays follows from its name, in every family of `transformers` that Handful reads: BERT, RoBERTa,
MPNet, DistilBERT, ViT, DINO, CLIP, SigLIP, Llama-like, GPT-2 and T5. In others, name modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import BadInput, nearest

_ROLES: tuple[tuple[str, str], ...] = (
    (r"(?:query|q_proj|q_lin|\w*[Aa]ttention\.q|attn\.q)", "q"),
    (r"(?:key|k_proj|k_lin|\w*[Aa]ttention\.k|attn\.k)", "k"),
    (r"(?:value|v_proj|v_lin|\w*[Aa]ttention\.v|attn\.v)", "v"),
    (r"(?:attention\.output\.dense|out_proj|o_proj|out_lin|\w*[Aa]ttention\.o|attn\.o|attn\.c_proj)", "o"),
    (r"(?:c_attn|in_proj)", "qkv"),
    (r"(?:gate_proj|wi_0)", "gate"),
    (r"(?:intermediate\.dense|fc1|lin1|up_proj|wi_1|wi|c_fc)", "up"),
    (r"(?:output\.dense|fc2|lin2|down_proj|wo|mlp\.c_proj)", "down"),
    (r"(?:visual_projection|text_projection)", "projection"),
    (r"(?:\w*position\w*|wpe)", "position"),
    (r"(?:word_embeddings|token_embedding|embed_tokens|shared|wte)", "embedding"),
)
"""The end of a module's name and its role; the first that fits."""
LINEAR = ("q", "k", "v", "qkv", "o", "gate", "up", "down")
"""Roles of the linear maps of a block."""
ROLES = (*LINEAR, "norm", "embedding", "position", "projection")
_TOWERS = (
    ("image", ("vision_model", "visual_projection", "visual")),
    ("text", ("text_model", "text_projection")),
    ("decoder", ("decoder",)),
    ("encoder", ("encoder",)),
)
_BLOCKS = {
    "all": (0.0, 1.0),
    "bottom": (0.0, 1 / 3),
    "mid": (1 / 3, 2 / 3),
    "up": (2 / 3, 1.0),
    "half-bottom": (0.0, 0.5),
    "half-up": (0.5, 1.0),
}


@dataclass(frozen=True)
class Site:
    """A module that can be changed.

    Args:
        name: its path in the model.
        role: one of `ROLES`; ``"other"`` where its name says nothing.
        block: in which transformer block of its tower it is, from the bottom; ``None`` outside of all.
        tower: ``"image"`` and ``"text"`` of a two-tower model, ``"encoder"`` and ``"decoder"`` of one that turns
            sequences into sequences, else ``""``.
    """

    name: str
    role: str
    block: int | None
    tower: str


def sites(model: nn.Module) -> tuple[Site, ...]:
    """Every module of ``model`` that has parameters of its own, in its order."""
    seq = any({"encoder", "decoder"} <= dict(m.named_children()).keys() for m in (model, *model.children()))
    return tuple(
        Site(name, _role(name, module), _block(name), _tower(name, seq))
        for name, module in model.named_modules()
        if name and (any(True for _ in module.parameters(recurse=False)) or hasattr(module, "parametrizations"))
    )


def named(parameter: str, regex: str) -> re.Pattern[str]:
    """What is searched in the names of modules. Raises `BadInput`, naming the parameter, where it cannot be."""
    try:
        return re.compile(regex)
    except re.error as error:
        raise BadInput(f"{parameter} {regex!r} is no regular expression: {error}") from error


def refuse_bare(model: nn.Module) -> None:
    """Raise `BadInput` where ``model`` has parameters outside of its modules: they are at no site."""
    bare = [name for name, _ in model.named_parameters(recurse=False)]
    if bare:
        raise BadInput(f"{bare[0]} is in no module of the model, so that it could not learn: give nn.Sequential(model)")


def depths(every: Iterable[Site]) -> dict[str, int]:
    """How many blocks each tower has."""
    found: dict[str, int] = {}
    for site in every:
        found[site.tower] = max(found.get(site.tower, 0), 0 if site.block is None else site.block + 1)
    return found


def _role(name: str, module: nn.Module) -> str:
    if "norm" in type(module).__name__.lower():
        return "norm"
    for pattern, role in _ROLES:
        if re.search(rf"(?:^|\.){pattern}$", name):
            return role
    return "other"


def _block(name: str) -> int | None:
    found = re.search(r"\.(\d+)(?:\.|$)", name)
    return int(found[1]) if found else None


def _tower(name: str, seq: bool) -> str:
    steps = name.split(".")
    for tower, marks in _TOWERS:
        if any(step in marks for step in steps[:2]):
            return tower if seq or tower in ("image", "text") else ""
    return ""


def blocks_of(model: nn.Module) -> tuple[str, ...]:
    """Names of the transformer blocks of ``model``, such as ``encoder.layer.0``, in its order."""
    found = (re.match(r"(.*?\.\d+)(?:\.|$)", site.name) for site in sites(model))
    return tuple(dict.fromkeys(match[1] for match in found if match))


def block_outputs(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that give what each transformer block gives: the block, or, in networks that call the parts
    of a block themselves, its last norm."""
    modules, every = dict(model.named_modules()), sites(model)
    found = []
    for block in blocks_of(model):
        norms = [site.name for site in every if site.role == "norm" and site.name.startswith(f"{block}.")]
        called = type(modules[block]).forward is not nn.Module.forward
        found.extend([block] if called else norms[-1:])
    return tuple(found)


@dataclass(frozen=True)
class Where:
    """A choice of sites.

    Args:
        roles: see `handful.tune.sites`.
        parameter: which parameter of a module: ``"weight"`` or ``"bias"``.
        blocks: ``"all"``, a third (``"bottom"``, ``"mid"``, ``"up"``), a half (``"half-bottom"``, ``"half-up"``),
            ``"top1"``, ``"top2"``, …, ``"below1"``, … for all below those, or numbers from the bottom. What lies
            outside of blocks is in ``"all"`` and ``"below…"``.
        towers: the towers of a model that has two; all by default.
        names: a regular expression searched in the modules' names, in place of ``roles``.
        sites: names of modules, in place of all of these.
        tied: a weight that several modules share (a table of words and the head that answers with it) may be chosen: it
            is changed once, for all of them, and always as a weight. Without it, such a weight is refused.
    """

    roles: tuple[str, ...] = LINEAR
    parameter: str = "weight"
    blocks: str | tuple[int, ...] = "all"
    towers: tuple[str, ...] = ()
    names: str | None = None
    sites: tuple[str, ...] = ()
    tied: bool = False

    def __post_init__(self) -> None:
        for name, value in (("roles", self.roles), ("towers", self.towers), ("sites", self.sites)):
            if isinstance(value, str):
                raise BadInput(f"{name} are a tuple of names, not {value!r}: give ({value!r},)")
        for role in self.roles:
            if role not in ROLES:
                raise BadInput(f"there is no role {role!r} of a module{nearest(role, ROLES)}")
        if (
            isinstance(self.blocks, str)
            and self.blocks not in _BLOCKS
            and not re.fullmatch(r"(?:top|below)[1-9]\d*", self.blocks)
        ):
            raise BadInput(f"blocks {self.blocks!r} are none{nearest(self.blocks, [*_BLOCKS, 'top1'])}")
        if self.names is not None:
            named("names", self.names)

    def find(self, model: nn.Module, needed: bool = True) -> tuple[Site, ...]:
        """The sites of ``model`` chosen, in its order.

        Raises:
            BadInput: there is none, unless they are not ``needed``; the towers asked for are not there.
        """
        every = sites(model)
        known = sorted({site.tower for site in every} - {""})
        for tower in self.towers:
            if tower not in known:
                raise BadInput(f"the model has no tower {tower!r}{nearest(tower, known) or '; it has one'}")
        depth = depths(every)
        asked = re.fullmatch(r"(?:top|below)(\d+)", str(self.blocks))
        if asked and int(asked[1]) > max(depth.values(), default=0):
            raise BadInput(f"{self.blocks} has {asked[1]} blocks, the model {max(depth.values(), default=0)}")
        found = tuple(
            site
            for site in every
            if self._fits(site, depth[site.tower])
            and isinstance(getattr(model.get_submodule(site.name), self.parameter, None), Tensor)
        )
        for name in sorted({*self.sites} - {site.name for site in found}):
            raise BadInput(f"the model has no {name}.{self.parameter}{nearest(name, [site.name for site in every])}")
        if not found and needed:
            what = f"names {self.names!r}" if self.names is not None else f"roles {', '.join(self.roles)}"
            there = sorted({site.role for site in every} - {"other"})
            names = nearest(self.names or "", [site.name for site in every])
            hint = names if self.names is not None else f"; it has {', '.join(there) or 'none that are known'}"
            raise BadInput(f"no {self.parameter} of the model fits {what} in blocks {self.blocks!r}{hint}")
        return found

    def _fits(self, site: Site, depth: int) -> bool:
        if self.sites:
            return site.name in self.sites
        fits = re.search(self.names, site.name) if self.names is not None else site.role in self.roles
        return bool(fits) and (not self.towers or site.tower in self.towers) and self._in_blocks(site.block, depth)

    def _in_blocks(self, block: int | None, depth: int) -> bool:
        if block is None:
            return self.blocks == "all" or str(self.blocks).startswith("below")
        if not isinstance(self.blocks, str):
            return block in self.blocks
        if self.blocks.startswith("top"):
            return block >= depth - int(self.blocks[3:])
        if self.blocks.startswith("below"):
            return block < depth - int(self.blocks[5:])
        low, high = _BLOCKS[self.blocks]
        return round(low * depth) <= block < round(high * depth)


def is_linear(module: nn.Module) -> bool:
    """Whether it gives ``x W^T + b`` when called: no convolution, table or norm.

    The output map of PyTorch's fused attention is none: attention reads its weight and never calls it.
    """
    read = isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return (isinstance(module, nn.Linear) and not read) or _is_turned(module)


def _is_turned(module: nn.Module) -> bool:
    """Whether it is GPT-2's ``Conv1D``, ``[in, out]``; a parametrised one is a class made from it."""
    return any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def map_of(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight ``[out, in]`` and the bias ``[out]`` of a linear map, as they are now."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor) and not isinstance(bias, nn.Module)
    return as_matrix(module, weight), bias


def as_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """A parameter as ``[out, in]``: convolutions flattened, GPT-2's ``Conv1D`` turned; a view. Vectors stay."""
    if _is_turned(module) and weight.dim() == 2:
        return weight.mT
    return weight.flatten(1) if weight.dim() > 2 else weight


def from_matrix(module: nn.Module, matrix: Tensor, like: torch.Size) -> Tensor:
    """The inverse of `as_matrix`, in the shape ``like``."""
    if _is_turned(module) and matrix.dim() == 2:
        return matrix.mT
    return matrix.reshape(like)


class SplitAttention(nn.Module):
    """``nn.MultiheadAttention`` (one map for query, key and value) with the three apart, so that each is a site.

    Args:
        fused: what it is made of; its numbers are copied.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        if fused.in_proj_weight is None or fused.bias_k is not None or fused.add_zero_attn:
            raise BadInput("this attention has no one map for query, key and value; it cannot be taken apart")
        width, self.heads, self.batch_first = fused.embed_dim, fused.num_heads, fused.batch_first
        has_bias = fused.in_proj_bias is not None
        like: dict[str, Any] = {"device": fused.in_proj_weight.device, "dtype": fused.in_proj_weight.dtype}
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=has_bias, **like) for _ in range(3))
        self.out_proj = nn.Linear(width, width, bias=fused.out_proj.bias is not None, **like)
        self.drop = fused.dropout
        with torch.no_grad():
            for at, part in enumerate((self.q_proj, self.k_proj, self.v_proj)):
                part.weight.copy_(fused.in_proj_weight[at * width : (at + 1) * width])
                if has_bias:
                    part.bias.copy_(fused.in_proj_bias[at * width : (at + 1) * width])
        self.out_proj.load_state_dict(fused.out_proj.state_dict())
        self.train(fused.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """As the fused one without the weights: ``query [b, l, d]`` (``[l, b, d]`` unless ``batch_first``)."""
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = _added(attn_mask, q.dtype)
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q.dtype)
            assert padding is not None
            mask = padding[:, None, None, :] if mask is None else mask + padding[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(
            q, k, v, mask, self.drop if self.training else 0.0, is_causal=is_causal and mask is None
        )
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask as what is added to the scores: of a boolean one, ``True`` is what may not be seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def split_attention(model: nn.Module) -> nn.Module:
    """``model`` with every ``nn.MultiheadAttention`` taken apart, in place. See `SplitAttention`."""
    for name, module in list(model.named_children()):
        if isinstance(module, nn.MultiheadAttention):
            setattr(model, name, SplitAttention(module))
        else:
            split_attention(module)
    return model
