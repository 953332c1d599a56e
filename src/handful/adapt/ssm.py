"""A selective state space model over the places of a feature map, in plain tensors; see `handful.adapt.mamba_fscil`.

u, z    = halves of Win x
u       = silu(causal convolution of each channel of u)
r, B, C = parts of Wsel u
step    = softplus(Wstep r + b),   A = -exp(a)
h_t     = exp(step_t A) h_(t-1) + step_t B_t u_t
y_t     = (C_t . h_t + D u_t) silu(z_t)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, pad, silu, softplus

from handful.adapt.packed import uniform

TAPS = 4
SHAPES: Mapping[str, str] = {
    "rise": "M F",
    "rise_bias": "M",
    "gain": "P M",
    "shift": "P M",
    "more": "K M M",
    "more_bias": "K M",
    "more_gain": "K P M",
    "more_shift": "K P M",
    "fall": "W M",
    "place": "P W",
    "enter": "G W",
    "taps": "W T",
    "taps_bias": "W",
    "select": "N W",
    "step": "W R",
    "step_bias": "W",
    "decay": "W S",
    "skip": "W",
}
"""Axes of the weights of a branch after ``*b``: F channels of the map, P places, W channels of the branch, S states, R
numbers a step is made of, K further layers; M = 2 F, G = 2 W, N = R + 2 S, T = 4."""


@dataclass(frozen=True)
class Scanned:
    """What a branch makes of maps of n items: ``out [*b, n, W]``, the ``gate [*b, n, P, W]`` before its activation,
    and ``chosen``, the parts r, B and C of the first order ``[*b, n, P, …]``.
    """

    out: Tensor
    gate: Tensor
    chosen: tuple[Tensor, Tensor, Tensor]


def branch(weights: Mapping[str, Tensor], maps: Tensor) -> Scanned:
    """Scan maps ``[*b, n, P, F]`` in four orders (rows and columns, both ways), put in place again and summed."""
    x = linear(maps, weights["rise"]) + _wide(weights["rise_bias"])
    x = _activated(x, weights["gain"], weights["shift"])
    for k in range(weights["more"].shape[-3]):
        x = linear(x, weights["more"][..., k, :, :]) + _wide(weights["more_bias"][..., k, :])
        x = _activated(x, weights["more_gain"][..., k, :, :], weights["more_shift"][..., k, :, :])
    x = linear(x, weights["fall"]) + weights["place"][..., None, :, :]
    n, ways = x.shape[-3], orders(x.shape[-2], x.device)
    y, z, chosen = _block(weights, torch.cat([x[..., way, :] for way in ways], -3))
    out, gate = torch.zeros_like(x), torch.zeros_like(x)
    for k, way in enumerate(ways):
        part, back = slice(k * n, (k + 1) * n), way.argsort()
        out, gate = out + y[..., part, :, :][..., back, :], gate + z[..., part, :, :][..., back, :]
    first = tuple(t[..., :n, :, :] for t in chosen)
    return Scanned(out.mean(-2), gate, (first[0], first[1], first[2]))


def orders(places: int, device: torch.device) -> list[Tensor]:
    """The places of a square map by rows, by rows from the end, by columns, by columns from the end."""
    rows = torch.arange(places, device=device)
    side = round(places**0.5)
    columns = rows.reshape(side, side).T.reshape(-1)
    return [rows, rows.flip(0), columns, columns.flip(0)]


def selective_scan(u: Tensor, step: Tensor, decay: Tensor, enter: Tensor, leave: Tensor, skip: Tensor) -> Tensor:
    """``C_t . h_t + D u_t`` for ``u [*b, n, P, W]``.

    Args:
        u, step: ``[*b, n, P, W]``.
        decay: A ``[*b, W, S]``.
        enter, leave: B and C ``[*b, n, P, S]``.
        skip: D ``[*b, W]``.
    """
    h, out = torch.zeros_like(u[..., 0, :, None] * enter[..., 0, None, :]), []
    for t in range(u.shape[-2]):
        kept = (step[..., t, :, None] * decay[..., None, :, :]).exp()
        h = kept * h + (step[..., t, :] * u[..., t, :])[..., None] * enter[..., t, None, :]
        out.append((h * leave[..., t, None, :]).sum(-1))
    return torch.stack(out, -2) + _wide(skip) * u


def start(
    channels: int, places: int, width: int, states: int, rank: int, layers: int, draw: torch.Generator, *, silent: bool
) -> dict[str, Tensor]:
    """Weights as the authors draw them, float64; with ``silent`` the gate is zero, and with it what comes out."""
    m, k = 2 * channels, layers - 2

    def even(*shape: int, fan: int) -> Tensor:
        return uniform(shape, 1 / math.sqrt(fan), draw)

    enter = even(2 * width, width, fan=width)
    pace: Tensor = 0.001 * 100 ** torch.rand(width, generator=draw, dtype=torch.float64)
    ones, zeros = torch.ones(places, m), torch.zeros(places, m)
    return {
        "rise": even(m, channels, fan=channels),
        "rise_bias": even(m, fan=channels),
        "gain": ones,
        "shift": zeros,
        "more": even(k, m, m, fan=m),
        "more_bias": even(k, m, fan=m),
        "more_gain": ones.expand(k, places, m),
        "more_shift": zeros.expand(k, places, m),
        "fall": even(width, m, fan=m),
        "place": 0.02 * torch.randn(places, width, generator=draw, dtype=torch.float64),
        "enter": torch.cat([enter[:width], torch.zeros_like(enter[width:])]) if silent else enter,
        "taps": even(width, TAPS, fan=TAPS),
        "taps_bias": even(width, fan=TAPS),
        "select": even(rank + 2 * states, width, fan=width),
        "step": even(width, rank, fan=rank),
        "step_bias": pace + (-(-pace).expm1()).log(),  # softplus gives pace
        "decay": torch.arange(1, states + 1, dtype=torch.float64).log().expand(width, states),
        "skip": torch.ones(width),
    }


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x [*b, …, i]`` by ``weight [*b, o, i]``."""
    batch = weight.dim() - 2
    flat = x.reshape(*x.shape[:batch], -1, x.shape[-1]) @ weight.mT
    return flat.reshape(*x.shape[:-1], weight.shape[-2])


def _block(weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    u, z = linear(x, weights["enter"]).chunk(2, -1)
    u = silu(_causal(u, weights["taps"]) + _wide(weights["taps_bias"]))
    rank, states = weights["step"].shape[-1], weights["decay"].shape[-1]
    chosen = torch.split(linear(u, weights["select"]), [rank, states, states], -1)
    step = softplus(linear(chosen[0], weights["step"]) + _wide(weights["step_bias"]))
    y = selective_scan(u, step, -weights["decay"].exp(), chosen[1], chosen[2], weights["skip"])
    return y * silu(z), z, chosen


def _causal(u: Tensor, taps: Tensor) -> Tensor:
    many, places = taps.shape[-1], u.shape[-2]
    before = pad(u, (0, 0, many - 1, 0))
    parts = [before[..., k : k + places, :] * _wide(taps[..., k]) for k in range(many)]
    return torch.stack(parts).sum(0)


def _activated(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Layer norm over places and channels together, and a leaky ReLU."""
    x = x - x.mean((-2, -1), keepdim=True)
    x = x / (x.square().mean((-2, -1), keepdim=True) + 1e-5).sqrt()
    return leaky_relu(x * gain[..., None, :, :] + shift[..., None, :, :], 0.1)


def _wide(vector: Tensor) -> Tensor:
    return vector[..., None, None, :]
