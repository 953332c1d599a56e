"""A causal model of two layers that reads 1000 tokens, and a few documents."""

from __future__ import annotations

import pytest
import tiny_lm

from handful.encode.lm import LanguageModel

SUBJECTS = ["The harbour", "A forest", "The old bridge", "Our market", "This river", "Her workshop"]
VERBS = ["was closed", "grew slowly", "had been painted", "smelled of salt", "lay under snow", "stood empty"]
ENDS = ["in the evening.", "after the war.", "by two brothers.", "for many years.", "near the sea!", "at last."]


@pytest.fixture(scope="session")
def causal() -> LanguageModel:
    model = tiny_lm.tiny("causal", max_position_embeddings=1000)
    model.tokenizer.model_max_length = model.most = 1000
    return model


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Of 9 to 13 sentences, no two of a document alike."""
    out = []
    for d in range(12):
        lines = [
            f"{SUBJECTS[(d + i) % 6]} {d} {VERBS[(d + 2 * i + i // 6) % 6]} {ENDS[(3 * d + i) % 6]}"
            for i in range(9 + d % 5)
        ]
        out.append(" ".join(lines))
    return out
