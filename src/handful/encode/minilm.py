"""all-MiniLM-L6-v2, the embedded text encoder: a text in, a unit vector of 384 numbers out.

BERT with 6 layers, width 384 and 12 attention heads (Wang et al., MiniLM, 2020), trained on a billion pairs of
sentences. Weights: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.encode.arithmetic import Arithmetic, Precision, chosen, dtype
from handful.encode.base import Batch, FeatureEncoder, Job
from handful.encode.texts import text_content, texts_of, token_batches
from handful.encode.weights import MINILM, MINILM_TOKENIZER

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from handful.encode.bert import SentenceBert

WIDTH = 384
HEADS = 12
MAX_TOKENS = 256
"""As the official model has it: what stands after them is not read."""
BATCH_TOKENS = 2048
"""Enough for full speed, and few enough for a layer's widest array to stay in the processor's cache."""


class MiniLM(FeatureEncoder):
    """Texts to unit vectors ``pooled`` [n, 384], which `class_text` shares.

    Args:
        precision: ``"auto"`` is bfloat16 on processors that have it, where its vectors keep a cosine above 0.9999 with
            those of float32.
    """

    name = "minilm"
    modality = "text"
    aligned = "pooled"
    templates = ("{}", "I want to know about {}", "I have a question about {}")
    logit_scale = 20.0  # what this model was trained with
    identity = f"minilm:{MINILM.sha256[:16]}:mean:{MAX_TOKENS}"

    def __init__(self, precision: Precision = "auto") -> None:
        self.shapes = {"pooled": (WIDTH,)}
        self._precision = precision

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return chosen(self._precision)

    def class_text(self, sentences: Sequence[str]) -> np.ndarray:
        return np.asarray(self.encode(list(sentences)))

    def truncated(self, items: Sequence[str]) -> np.ndarray:
        """For each text whether it is longer than the 256 tokens that are read [n], bool."""
        return np.array([bool(tokens.overflowing) for tokens in self._tokens(items)], dtype=bool)

    def _content(self, item: Any) -> bytes:
        return text_content(item)

    def _features(self, jobs: Sequence[Job], outputs: Sequence[str], views: int) -> Iterator[Batch]:
        import torch

        ids = [tokens.ids for tokens in self._tokens(texts_of(jobs))]
        for positions in token_batches([len(some) for some in ids], BATCH_TOKENS):
            with torch.inference_mode():
                vectors = self._network([ids[position] for position in positions])
            yield positions, {"pooled": vectors.numpy()[:, None]}

    def _tokens(self, texts: Sequence[str]) -> list[Encoding]:
        return list(self._tokenizer.encode_batch_fast(list(texts)))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(MINILM_TOKENIZER.path()))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return tokenizer

    @cached_property
    def _network(self) -> SentenceBert:
        from safetensors.torch import load_file

        from handful.encode.bert import SentenceBert

        return SentenceBert(load_file(MINILM.path()), HEADS, dtype(self.arithmetic))
