"""Text encoders of the Hugging Face family: sentence-transformers folders and plain transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handful.core.late_interaction import Tokens as TokenVectors
from handful.encode.arithmetic import Arithmetic
from handful.encode.base import Batch, FeatureEncoder, Job, unit
from handful.encode.hf import Source, first_line, quiet
from handful.encode.hf_sentence import Recipe
from handful.encode.reading import Reading
from handful.encode.texts import Long, checked_long, read_windows, text_content, texts_of
from handful.errors import BadInput

BATCH_TOKENS = 2048
MOST_TOKENS = 512
"""Read of a text when the model names no limit: attention's cost grows with the square."""

OWNER = "overflow_to_sample_mapping"
"""What ``transformers`` calls the text that each window is part of."""
Tokens = dict[str, list[list[int]]]
"""By input of the model (``input_ids``, …) a list a text or window."""


class HubText(FeatureEncoder):
    """Texts to vectors ``pooled`` [n, d], as the model's own library gives them.

    Args:
        source: the model's files.
        recipe: what makes a vector of the transformer's output.
        arithmetic: ``"float32"`` or ``"bfloat16"``.
        long: ``"first"`` reads as many tokens of a text as the model takes, ``"mean"`` all of it, in windows of as
            many; its vector is the mean of theirs, unit where the model's are. A prompt stands in the first.
    """

    modality = "text"
    aligned: str | None = "pooled"
    logit_scale = 20.0

    def __init__(self, source: Source, recipe: Recipe, arithmetic: Arithmetic, long: Long = "first") -> None:
        self.name, self.revision, self._arithmetic = source.name, source.revision, arithmetic
        self._source, self._long = source, checked_long(long)
        self.options = {"long": long} if long != "first" else {}
        self.basis = f"hf-text:{source.digest}"
        self._recipe = recipe
        self._reading: Reading | None = None
        self._tokenizer = source.load("AutoTokenizer", recipe.folder)
        self._model = source.load_model(arithmetic, recipe.folder)
        if self._model.config.is_encoder_decoder or self._tokenizer.pad_token is None:
            raise BadInput(f"encoder {source.name!r} is a {type(self._model).__name__}, not a text encoder")
        if long == "mean" and not self._tokenizer.is_fast:
            raise BadInput(f"encoder {source.name!r} has a tokenizer that cannot cut windows; leave long at 'first'")
        self._tokenizer.padding_side = "right"
        self.max_tokens = _most_tokens(recipe, self._tokenizer, self._model)
        try:
            self.shapes = {"pooled": tuple(self._vectors(self._tokens(["a"]), [0]).shape[1:])}
        except (RuntimeError, ValueError) as error:  # such as a Dense layer of another width than what it is given
            raise BadInput(f"encoder {source.name!r} does not work: {first_line(error)}") from error

    @property
    def arithmetic(self) -> str:
        return self._arithmetic

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        return unit(self.encode(list(sentences), cache=cache))

    def parts(self) -> dict[str, bytes]:
        return self._source.parts()

    def truncated(self, items: Sequence[str]) -> np.ndarray:
        """For each text whether it has more tokens than are read [n], bool."""
        lengths = [len(some) for some in self._tokens(items, truncation=False)["input_ids"]] if len(items) else []
        return np.array(lengths, dtype=int) > self.max_tokens

    def unknown(self, items: Sequence[str]) -> np.ndarray:
        """For each text the share of its tokens that the tokenizer has no piece for [n]."""
        unknown = self._tokenizer.unk_token_id
        return np.array([ids.count(unknown) / max(len(ids), 1) for ids in self._tokens(items)["input_ids"]])

    def tower(self) -> HubTower:
        """The network as a module that can be tuned, with numbers of its own; it takes what `inputs` gives."""
        model = deepcopy(self._model).float().requires_grad_(True)
        return HubTower(model, self._tokenizer, self._recipe)

    def inputs(self, items: Sequence[str]) -> list[dict[str, list[int]]]:
        """The tokens of texts, as `tower` takes them: as many of each as the model reads."""
        tokens = self._tokens(texts_of([(item, self._content(item)) for item in items]))
        return [{key: lists[at] for key, lists in tokens.items()} for at in range(len(items))]

    def retuned(self, tower: HubTower, mark: str, reading: Reading | None = None) -> HubText:
        """This encoder with the weights of ``tower``; ``mark`` tells them from others in `identity`.

        With ``reading`` that is what ``pooled`` holds, and the space of class text is gone.
        """
        other = copy(self)
        other.basis = f"{self.basis}:{mark}"
        other._model = deepcopy(tower.model).eval().requires_grad_(False).to(self._model.dtype)
        if reading is not None:
            other._reading, other.shapes, other.aligned = reading, {"pooled": (reading.width,)}, None
        return other

    def _content(self, item: Any) -> bytes:
        return text_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        texts = texts_of(jobs)
        tokens = self._tokens(texts, windows=self._long == "mean")
        owner = np.asarray(tokens.pop(OWNER, range(len(texts))), dtype=int)

        def vectors(places: list[int]) -> np.ndarray:
            return np.asarray(self._vectors(tokens, places).numpy())

        lengths = [len(some) for some in tokens["input_ids"]]
        unit_length = self._recipe.unit and self._reading is None
        return read_windows(owner, lengths, vectors, budget=BATCH_TOKENS, unit_length=unit_length)

    def _tokens(self, texts: Sequence[str], truncation: bool = True, windows: bool = False) -> Tokens:
        prompted = [self._recipe.prompt + (text.lower() if self._recipe.lower else text) for text in texts]
        with quiet():  # it would warn of long texts, which `truncated` is for
            limit = self.max_tokens if truncation else None
            return dict(
                self._tokenizer(prompted, truncation=truncation, max_length=limit, return_overflowing_tokens=windows)
            )

    def _vectors(self, tokens: Tokens, positions: Sequence[int]) -> Tensor:
        some = {key: [lists[position] for position in positions] for key, lists in tokens.items()}
        with torch.inference_mode():
            if self._reading is not None:
                return self._reading(tokens_of(self._model, self._tokenizer, some))
            return vectors_of(self._model, self._tokenizer, self._recipe, some)


def vectors_of(model: Any, tokenizer: Any, recipe: Recipe, tokens: Tokens) -> Tensor:
    """Vectors ``[n, d]`` of n texts or windows."""
    return recipe.vectors(*tokens_of(model, tokenizer, tokens))


def tokens_of(model: Any, tokenizer: Any, tokens: Tokens) -> TokenVectors:
    """Token vectors of n texts or windows."""
    with quiet():
        batch = tokenizer.pad(tokens, return_tensors="pt")
        return TokenVectors(model(**batch).last_hidden_state.float(), batch["attention_mask"])


class HubTower(nn.Module):
    """A text encoder of `transformers` as a module: tokens of n texts to vectors ``[n, d]`` with a gradient."""

    def __init__(self, model: Any, tokenizer: Any, recipe: Recipe) -> None:
        super().__init__()
        self.model, self._tokenizer, self._recipe = model, tokenizer, recipe

    def forward(self, texts: Sequence[dict[str, list[int]]]) -> Tensor:
        """See the class."""
        return self._recipe.vectors(*self.tokens(texts))

    def tokens(self, texts: Sequence[dict[str, list[int]]]) -> TokenVectors:
        """Token vectors of each text."""
        tokens = {key: [text[key] for text in texts] for key in texts[0]}
        return tokens_of(self.model, self._tokenizer, tokens)


def _most_tokens(recipe: Recipe, tokenizer: Any, model: Any) -> int:
    if recipe.max_tokens is not None:
        return recipe.max_tokens
    # A tokenizer without a limit of its own says 10^30.
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS]
    return min(int(min(limits)), MOST_TOKENS)
