"""The ways of tuning that T-Few is compared with (paper 027, section 3.3), each with its rate and number of steps.

    way = COMPARED["compacter"]
    TFewClassifier(model, [template], way.settings, changes=way.changes, start=way.start).fit(texts, labels, choices)

All learn by T-Few's losses and schedule; prompts without that of wrong answers, as in the authors' settings. FISH masks
follow from data: `handful.tune.masked.chosen`, of `fisher`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from handful.errors import BadInput
from handful.tune.adapters import Adapter
from handful.tune.compacter import compacter, norms
from handful.tune.delta import Delta, Placed
from handful.tune.front import KEYS, WORDS, AsWords, Prefix, SoftPrompt
from handful.tune.ia3 import Scaling, ia3
from handful.tune.intrinsic import intrinsic
from handful.tune.lora import LoRA
from handful.tune.own import Own
from handful.tune.prompting import everything
from handful.tune.recipe import Data, Readout, Start
from handful.tune.sites import LINEAR, Where
from handful.tune.t_few import TFew

Changes = Callable[[Any], tuple[Placed, ...]]


@dataclass(frozen=True)
class Compared:
    """A way of tuning.

    Args:
        changes: what learns, for a language tower.
        settings: of training.
        start: first numbers that follow from the model.
    """

    changes: Changes
    settings: TFew
    start: Start | None = None


@dataclass(frozen=True)
class CommonWords:
    """A soft prompt begins as words drawn from the commonest: fills the slot `start`.

    Args:
        first, last: numbers of the words in the vocabulary, from the first on and before the last; T5's go by how
            common they are.
        seed: of the draw.
    """

    first: int = 3
    last: int = 5003
    seed: int = 0

    def __call__(
        self, delta: Delta, model: nn.Module, readout: Readout, data: Data, loss: Callable[[Any], torch.Tensor]
    ) -> None:
        """See `handful.tune.recipe.Start`."""
        body: Any = model.body
        last = min(self.last, len(body.get_input_embeddings().weight))
        generator = torch.Generator().manual_seed(self.seed)
        most = max((h.change.tokens for h in delta.each() if isinstance(h.change, SoftPrompt)), default=1)
        ids = torch.randint(self.first, last, (most,), generator=generator).tolist()
        AsWords(tuple(ids))(delta, model, readout, data, loss)


def bitfit(model: nn.Module) -> tuple[Placed, ...]:
    """Every bias, and every norm. Raises `BadInput` for a model without biases, such as T5."""
    if not any(name.endswith("bias") for name, _ in model.named_parameters()):
        raise BadInput("the model has no biases to learn; the authors add some to T5: take 'layernorm' instead")
    return (Placed(Own(), Where(LINEAR, "bias"), needed=False), *norms(model))


def low_rank(model: nn.Module) -> tuple[Placed, ...]:
    """LoRA of rank 4 at every map, and every norm."""
    return (Placed(LoRA(4, 1.0), Where(LINEAR)), *norms(model))


def bottlenecks(model: nn.Module) -> tuple[Placed, ...]:
    """A bottleneck behind each self-attention and feed-forward, and every norm."""
    (behind, *rest) = compacter(model)
    change = Adapter(reduction=32, begins="normal", std=0.02)
    return (Placed(change, behind.where), *rest)


def prompt(model: nn.Module, tokens: int) -> tuple[Placed, ...]:
    """Vectors in front of the words."""
    return (Placed(SoftPrompt(tokens), WORDS),)


def prefix(model: nn.Module, tokens: int = 10, inner: int = 512) -> tuple[Placed, ...]:
    """Keys and values in front of every layer, through a network with ``inner`` units; in a seq2seq model in front of
    those of each of its three attentions, through networks of their own.
    """
    front: Any = model.front
    width = int(front.words.weight.shape[1])
    return (Placed(Prefix(tokens, through=width, inner=inner), KEYS),)


_PROMPT = TFew(lr=0.3, w_ul=0.0, relative=False)
COMPARED: Mapping[str, Compared] = {
    "ia3": Compared(ia3, TFew()),
    "full": Compared(everything, TFew(steps=300, lr=3e-4)),
    "bitfit": Compared(bitfit, TFew(lr=3e-4)),
    "layernorm": Compared(norms, TFew(lr=3e-4)),
    "lora": Compared(low_rank, TFew()),
    "lora-scaling": Compared(lambda model: (Placed(Scaling(), Where(LINEAR)),), TFew()),
    "adapter": Compared(bottlenecks, TFew(steps=500)),
    "compacter": Compared(compacter, TFew(steps=500)),
    "compacter++": Compared(partial(compacter, attention=False), TFew(steps=500)),
    "prompt-10": Compared(partial(prompt, tokens=10), _PROMPT, CommonWords()),
    "prompt-100": Compared(partial(prompt, tokens=100), _PROMPT, CommonWords()),
    "prefix": Compared(prefix, TFew(lr=1e-2)),
    "said-20k": Compared(partial(intrinsic, dimension=20_000), TFew(steps=3000, lr=3e-2)),
    "said-500k": Compared(partial(intrinsic, dimension=500_000), TFew(steps=3000, lr=3e-2)),
}
"""By name, with the authors' settings."""
