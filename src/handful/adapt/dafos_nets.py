"""The networks of DAFOS-Net (paper 107): an encoder with a norm that knows domains, and generators of features.

Networks are lists of tensors, weight and bias of each layer in turn, with ReLU between layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from handful.core.gaussians import class_means
from handful.core.train import Adam

EPS = 1e-5
ADAM_EPS = 1e-7
NOISE = 8
"""Numbers of the noise that a generator starts from."""
GENERATOR, DISCRIMINATOR, JUDGE = (32, 48), (48, 32, 16, 8), (128, 64, 32, 16, 8)
"""Sizes of the layers between."""


def layers(sizes: tuple[int, ...], draw: torch.Generator, like: Tensor) -> list[Tensor]:
    """A network of random weights (uniform, as Glorot and Bengio 2010 have them), biases 0."""
    out = []
    for rows, columns in zip(sizes[1:], sizes[:-1], strict=True):
        bound = (6 / (rows + columns)) ** 0.5
        out.append((2 * torch.rand(rows, columns, generator=draw, dtype=torch.float64) - 1).to(like) * bound)
        out.append(like.new_zeros(rows))
    return out


def forward(network: list[Tensor], x: Tensor) -> Tensor:
    """What a network makes of rows ``x [*b, n, …]``, the last layer without ReLU."""
    for at in range(0, len(network), 2):
        x = x if at == 0 else x.relu()
        x = x @ network[at].mT + network[at + 1][..., None, :]
    return x


def domain_norm(x: Tensor, domain: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Rows ``[n, D]`` less the mean of their domain, over its spread, times ``gain`` and more by ``shift [M, D]``."""
    mean, spread = moments(x, domain, len(gain))
    return (x - mean[domain]) / spread[domain] * gain[domain] + shift[domain]


def moments(x: Tensor, domain: Tensor, domains: int) -> tuple[Tensor, Tensor]:
    """Mean and spread of the rows of each domain ``[M, D]``."""
    of = one_hot(domain, domains).to(x)
    mean = class_means(x, of)[0]
    return mean, (class_means((x - mean[domain]).square(), of)[0] + EPS).sqrt()


@dataclass(frozen=True)
class Encoder:
    """``f(x) = relu(W norm(domain_norm(x)) + b)``.

    Args:
        gain, shift: of the norm by domains ``[M, D]``.
        gain_all, shift_all: of the norm of all rows together ``[1, D]``.
        weight, bias: ``[E, D]``, ``[E]``.
    """

    gain: Tensor
    shift: Tensor
    gain_all: Tensor
    shift_all: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def start(cls, width: int, to: int, domains: int, draw: torch.Generator, like: Tensor) -> Encoder:
        """Random weights, norms that leave mean 0 and spread 1."""
        ones = like.new_ones(domains, width)
        return cls(ones, 0 * ones, ones[:1], 0 * ones[:1], *layers((width, to), draw, like))

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [self.gain, self.shift, self.gain_all, self.shift_all, self.weight, self.bias]

    def __call__(self, x: Tensor, domain: Tensor) -> Tensor:
        """Rows ``[n, E]`` of rows ``x [n, D]`` of the domains ``[n]``, normed by the statistics of these rows."""
        x = domain_norm(x, domain, self.gain, self.shift)
        x = domain_norm(x, torch.zeros_like(domain), self.gain_all, self.shift_all)
        return (x @ self.weight.mT + self.bias).relu()

    def settled(self, x: Tensor, domain: Tensor, asked: int) -> list[Tensor]:
        """Weight and bias for rows of the domain ``asked``, the norms taken in, by the statistics of the rows ``x``."""
        mean, spread = (t[asked] for t in moments(x, domain, len(self.gain)))
        scale, offset = self.gain[asked] / spread, self.shift[asked] - self.gain[asked] * mean / spread
        x = domain_norm(x, domain, self.gain, self.shift)
        mean, spread = (t[0] for t in moments(x, torch.zeros_like(domain), 1))
        scale, offset = (t * self.gain_all[0] / spread for t in (scale, offset - mean))
        return [self.weight * scale, self.bias + self.weight @ (offset + self.shift_all[0])]


def overlap(s1: Tensor, s2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """``mean (1 + cos(z1, z2)) max(1e-7, cos(s1, s2))``: features like each other from noise like each other cost."""
    cos = torch.nn.functional.cosine_similarity
    return ((1 + cos(z1, z2, -1)) * cos(s1, s2, -1).clamp_min(1e-7)).mean()


def collapse(s1: Tensor, s2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """``mean 1 + log((1 - cos(z1, z2) + e) / (1 - cos(s1, s2) + e))``, e = 1e-8, the authors' other choice."""
    cos = torch.nn.functional.cosine_similarity
    return (1 + ((1 - cos(z1, z2, -1) + 1e-8) / (1 - cos(s1, s2, -1) + 1e-8)).log()).mean()


APART: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {"overlap": overlap, "collapse": collapse}
"""What keeps the features of the two generators apart."""


@dataclass
class Learner:
    """A network that learns by Adam beside another one."""

    network: list[Tensor]
    update: Adam = field(default_factory=lambda: Adam(ADAM_EPS))

    def free(self) -> list[Tensor]:
        """The network as leaves of a graph."""
        return [tensor.detach().requires_grad_() for tensor in self.network]

    def learn(self, loss: Tensor, free: list[Tensor], rate: float) -> None:
        """One step; the graph of ``loss`` stays."""
        gradients = torch.autograd.grad(loss, free, retain_graph=True)
        self.network = [tensor.clone() for tensor in self.network]
        self.update(self.network, gradients, rate)


@dataclass
class Rivals:
    """A generator of features of a class, and a discriminator that tells them from true ones.

    Args:
        generator, discriminator: both take the class, one of ``depth``, as well.
        noise: its standard deviation.
        depth: see above.
    """

    generator: Learner
    discriminator: Learner
    noise: float
    depth: int

    @classmethod
    def start(cls, width: int, depth: int, noise: float, draw: torch.Generator, like: Tensor) -> Rivals:
        """Random networks for features of ``width`` numbers."""
        made = layers((NOISE + depth, *GENERATOR, width), draw, like)
        told = layers((width + depth, *DISCRIMINATOR, 1), draw, like)
        return cls(Learner(made), Learner(told), noise, depth)

    def make(self, of: Tensor, draw: torch.Generator, free: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """A feature of each class ``of [n, depth]`` ``[n, E]``, and the noise it comes from."""
        z = self.noise * torch.randn(len(of), NOISE, generator=draw, dtype=torch.float64).to(of)
        return forward(self.generator.network if free is None else free, torch.cat([z, of], -1)).relu(), z

    def contest(
        self, true: Tensor, of: Tensor, draw: torch.Generator, rate: float, apart: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """One step of the discriminator, one of the generator.

        Args:
            true: features ``[n, E]``.
            of: their classes ``[n, depth]``.
            draw: what draws the noise.
            rate: of both steps.
            apart: a further loss of the generator, of made features and their noise.
        """
        made, told = self.make(of, draw)[0], self.discriminator.free()
        logits = forward(told, torch.cat([torch.cat([made, true]), torch.cat([of, of])], -1))
        is_made = torch.cat([torch.ones_like(true[:, :1]), torch.zeros_like(true[:, :1])])
        self.discriminator.learn(binary_cross_entropy_with_logits(logits, is_made), told, rate)
        free = self.generator.free()
        made, z = self.make(of, draw, free)
        logits = forward(self.discriminator.network, torch.cat([made, of], -1))
        loss = binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)) + apart(made, z)
        self.generator.learn(loss, free, rate)

    def back_to(self, before: tuple[list[Tensor], list[Tensor]], share: float) -> None:
        """Keep ``share`` of the way from the networks ``before`` (Reptile)."""
        for learner, old in zip((self.generator, self.discriminator), before, strict=True):
            learner.network = [o + share * (new - o) for o, new in zip(old, learner.network, strict=True)]
