"""Models of two layers with random weights, which learn in a fraction of a second."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def seeded(make: type[nn.Module], config: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = make(config).eval()
    return model


@pytest.fixture(scope="session")
def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    return seeded(BertModel, config)


@pytest.fixture(scope="session")
def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    return seeded(LlamaForCausalLM, config)


@pytest.fixture(scope="session")
def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        dropout_rate=0.0, decoder_start_token_id=0,
    )  # fmt: skip
    return seeded(T5ForConditionalGeneration, config)


@pytest.fixture(scope="session")
def clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 16, "eos_token_id": 59}  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    return seeded(CLIPModel, CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
