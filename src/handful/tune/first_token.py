"""A head on the first token of a masked language model, [CLS] or <s>: what is learnt where no word is asked for.

logits = V tanh(W h + b) + c        h the last hidden state of the first token; dropout before W, if any
reversed: the gradient that reaches h is -s times its own, so that the model unlearns what the head finds
          (Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, 2015)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.language_tower import LanguageTower
from handful.encode.prompt import Prompt
from handful.errors import BadInput
from handful.tune.recipe import Data, Readout


class FirstToken(Readout):
    """See `handful.tune.first_token`.

    Args:
        dropout: of h, in training.
        std: both maps begin normal with this deviation and biases of 0, as in BERT; ``None`` as ``nn.Linear`` does.
        reverse: s; 0 leaves the gradient as it is.
    """

    w: nn.Parameter
    b: nn.Parameter
    v: nn.Parameter
    c: nn.Parameter

    def __init__(self, dropout: float = 0.0, std: float | None = 0.02, reverse: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise BadInput(f"dropout is a share below 1, not {dropout}")
        self.dropout, self.std, self.reverse = dropout, std, reverse

    def begin(self, model: nn.Module, data: Data, generator: torch.Generator) -> None:
        with torch.no_grad():
            width = self.look(model, data.take(torch.arange(1))).shape[1]
        self.w, self.b = self._map(width, width, generator)
        self.v, self.c = self._map(len(data.classes), width, generator)

    def look(self, model: nn.Module, inputs: Sequence[Prompt]) -> Tensor:
        """The last hidden states of the first tokens ``[B, d]``."""
        if not isinstance(model, LanguageTower) or model.kind != "masked":
            raise BadInput("the first token is read of a masked language model; this is none")
        return model.states([replace(prompt, masks=(0,)) for prompt in inputs])[:, 0]

    def forward(self, features: Tensor, model: nn.Module) -> Tensor:
        h = features
        if self.reverse:
            h = (1 + self.reverse) * h.detach() - self.reverse * h
        h = functional.dropout(h, self.dropout, self.training)
        return functional.linear(torch.tanh(functional.linear(h, self.w, self.b)), self.v, self.c)

    def _map(self, out: int, into: int, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
        if self.std is not None:
            return nn.Parameter(self.std * torch.randn(out, into, generator=generator)), nn.Parameter(torch.zeros(out))
        weight, bias = (torch.rand(shape, generator=generator) * 2 - 1 for shape in ((out, into), (out,)))
        return nn.Parameter(weight / math.sqrt(into)), nn.Parameter(bias / math.sqrt(into))
