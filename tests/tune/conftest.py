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


WORDS = [
    "a", "photo", "of", "the", ".", "red", "green", "blue", "dark", "bright", "old", "harbour", "forest", "desert",
    "bridge", "park", "X",
]  # fmt: skip
VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *WORDS])}


def reads() -> object:
    """A tokenizer of the words above."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(".", "isolated"),
    ])  # fmt: skip
    marks = [("[BOS]", 2), ("[EOS]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]",
        model_max_length=16,
    )  # fmt: skip


def two_towers(family: str, projection: dict[str, int]) -> nn.Module:
    """Two layers with random weights that read the words above; 16 pixels a side."""
    import transformers

    from handful.encode.two_towers import TwoTowers

    text = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3,
            "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **projection)
    model = seeded(getattr(transformers, f"{family}Model"), config)
    with torch.no_grad():  # the usual beginnings are so small that all texts look the same
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter *= 10
    return TwoTowers(model, reads()).eval()


@pytest.fixture(scope="session")
def towers() -> nn.Module:
    """A CLIP; see `two_towers`."""
    return two_towers("CLIP", {"projection_dim": 8})


@pytest.fixture(scope="session")
def siglip() -> nn.Module:
    """A SigLIP; see `two_towers`."""
    return two_towers("Siglip", {})


@pytest.fixture(scope="session")
def scenes() -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Pixels [12, 3, 16, 16] of three colours, their labels, and names."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    pixels = 0.5 * torch.randn(12, 3, 16, 16, generator=draw) + 1.5 * torch.eye(3)[labels][:, :, None, None]
    return pixels, labels, ("red park", "green_forest", "blue harbour")
