"""Tiny models of known families with random weights, saved as their authors save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WORDS = ["the", "a", "card", "of", "is", "lost", "where", "my", "new", "refund", "cat", "dog", "photo", "two", "red"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def save_tokenizer(folder: Path, most: int = 32) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", model_max_length=most,
    ).save_pretrained(folder)  # fmt: skip


def save_bert(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_processor(folder: Path, name: str, size: int = 32) -> None:
    import transformers

    getattr(transformers, name)(size={"height": size, "width": size}, do_center_crop=False).save_pretrained(folder)


def save_two_towers(folder: Path, family: str) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    text = {"vocab_size": len(SPECIAL + WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0,
            "bos_token_id": 2}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    more = {"projection_dim": 8} if family == "CLIP" else {}
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **more)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    save_processor(folder, f"{family}ImageProcessorPil")
    save_tokenizer(folder, most=12)
    return folder


def save_vision(folder: Path, family: str, **options: Any) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16,
        **options,
    )  # fmt: skip
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    save_processor(folder, "ViTImageProcessorPil")
    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session", params=["CLIP", "Siglip"])
def two_towers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image encoder with a text side."""
    return save_two_towers(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session", params=["ViT", "Dinov2", "Dinov2WithRegisters"])
def vision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image encoder without one."""
    options = {"num_register_tokens": 3} if request.param == "Dinov2WithRegisters" else {}
    return save_vision(tmp_path_factory.mktemp(request.param), request.param, **options)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Of different sizes."""
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)) for h, w in ((40, 50), (64, 33), (32, 32))]
