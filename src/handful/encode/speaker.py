"""A language model as an encoder of texts.

By itself a text becomes the unit mean of the model's last states (of a seq2seq model its reader's). Once it was tuned
to be asked (`handful.encode.asking`), a text becomes the logits of the classes.

    encoder("hf:FOLDER", language_model=True)      # masked, causal or seq2seq
    encoder("smollm2", language_model=True)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from handful.encode.asking import Asking
from handful.encode.base import Batch, FeatureEncoder, Job
from handful.encode.hf import Source, quiet
from handful.encode.language_tower import LanguageTower
from handful.encode.lm import LanguageModel, model_of
from handful.encode.prompt import Prompt
from handful.encode.texts import text_content, texts_of
from handful.errors import BadInput

MOST_TOKENS = 512
"""Read of a text for its vector, at most."""
BATCH = 16
"""Texts at a time."""


class Speaker(nn.Module):
    """A language model as a module that can be tuned: texts to vectors ``[n, d]``, and ``model`` to be asked.

    Args:
        model: its network is this module's own part.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.tower: LanguageTower = model.tower
        self._model = [model]  # in a list, since it holds the tower as well

    @property
    def model(self) -> LanguageModel:
        """With this module's network."""
        return self._model[0]

    def own(self) -> Speaker:
        """A copy with numbers of its own; what is attached to them is copied along."""
        return Speaker(self.model.with_tower(deepcopy(self.tower)))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """The mean of the last states of each text's tokens."""
        ids = self.tokens(texts, min(self.model.most, MOST_TOKENS))
        return self.tower.mean([Prompt.of(some, None) for some in ids])

    def tokens(self, texts: Sequence[str], most: int | None = None) -> list[list[int]]:
        """The tokens of each text, the first ``most`` of them."""
        with quiet():  # it would warn of long texts
            found = [list(self.model.tokenizer.encode(text))[:most] for text in texts]
        spare = self.model.tokenizer.eos_token_id or 0
        return [ids or [spare] for ids in found]


class LanguageEncoder(FeatureEncoder):
    """See `handful.encode.speaker`.

    Args:
        model: the language model.
        source: its files.
        basis: what makes it what it is.
    """

    modality: Literal["text", "image"] = "text"

    def __init__(self, model: LanguageModel, source: Source | None, basis: str) -> None:
        self.name, self.revision = model.name, None if source is None else source.revision
        self._source, self._speaker, self.basis = source, Speaker(model).eval(), basis
        self._asking: Asking | None = None
        self.options = {"language_model": True}
        self.max_tokens = min(model.most, MOST_TOKENS)
        with torch.inference_mode():
            self.shapes = {"pooled": tuple(self._speaker(["a"]).shape[1:])}

    @property
    def arithmetic(self) -> str:
        return "float32"

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        raise BadInput(f"language model {self.name!r} has no space that class names share with texts")

    def parts(self) -> dict[str, bytes]:
        if self._source is None:
            from handful.encode.smollm2 import parts

            return parts()
        return self._source.parts()

    def tower(self) -> Speaker:
        """The network as a module that can be tuned, with numbers of its own; it takes texts."""
        made = self._speaker.own()
        made.tower.float().requires_grad_(True)
        return made

    def inputs(self, items: Sequence[str]) -> list[str]:
        """Texts, as `tower` takes them."""
        return texts_of([(item, self._content(item)) for item in items])

    def retuned(self, tower: Speaker, mark: str, reading: Asking | None = None) -> LanguageEncoder:
        """This encoder with the network of ``tower``, and what is attached to it; ``mark`` tells it from others.

        With ``reading`` that is what ``pooled`` holds.
        """
        other = copy(self)
        other.basis = f"{self.basis}:{mark}"
        other._speaker = tower.own().eval().requires_grad_(False)
        if reading is not None:
            other._asking, other.shapes = reading, {"pooled": (reading.width,)}
        return other

    def truncated(self, items: Sequence[str]) -> np.ndarray:
        """For each text whether it has more tokens than are read [n], bool."""
        return np.array([len(ids) for ids in self._speaker.tokens(items)], dtype=int) > self._most

    def unknown(self, items: Sequence[str]) -> np.ndarray:
        """For each text the share of its tokens that the tokenizer has no piece for [n]."""
        unknown = self._speaker.model.tokenizer.unk_token_id
        return np.array([ids.count(unknown) / len(ids) for ids in self._speaker.tokens(items)])

    @property
    def _most(self) -> int:
        return self.max_tokens if self._asking is None else min(self.max_tokens, self._asking.length)

    def _content(self, item: Any) -> bytes:
        return text_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        texts = texts_of(jobs)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            with torch.inference_mode():
                found = self._vectors([texts[row] for row in rows])
            yield rows, {"pooled": found.float().numpy()[:, None]}

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        if self._asking is None:
            return functional.normalize(self._speaker(texts), dim=-1)
        return self._asking.logits(self._asking.look(self._speaker.model, texts))


def language_encoder(source: Source) -> LanguageEncoder:
    """The language model of these files as an encoder; files as `handful.encode.lm.language_model` takes them."""
    return LanguageEncoder(model_of(source), source, f"hf-lm:{source.digest}")
