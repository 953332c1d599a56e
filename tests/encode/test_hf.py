"""Models of the Hugging Face family: what they give is what their own library gives; nothing unsafe is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from handful.encode import encoder
from handful.errors import BadInput, BadItem

TEXTS = ["where is my card", "the cat", "a new photo of two red dog refund of my lost card", "cat"]


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit(path: Path, **changes: object) -> None:
    write(path, json.loads(path.read_text(encoding="utf-8")) | changes)


@pytest.fixture
def sentence(bert: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a sentence-transformers folder of the tiny BERT."""

    def make(pooling: dict[str, Any], *more: str, settings: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "sentence"
        shutil.copytree(bert, folder)
        kinds = ["Transformer", "Pooling", *more]
        paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], 1))]
        types = [f"sentence_transformers.models.{kind}" for kind in kinds]
        rows = [
            {"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(zip(paths, types, strict=True))
        ]
        write(folder / "modules.json", rows)
        write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, **pooling})
        write(folder / "sentence_bert_config.json", settings or {"max_seq_length": 8, "do_lower_case": False})
        return folder

    return make


def hidden(folder: Path, text: str, most: int) -> torch.Tensor:
    """Token vectors [t, d] of one text, straight from transformers."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=most, return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]


def test_plain_text_encoder_gives_the_mean_of_its_tokens(bert: Path) -> None:
    vectors = encoder(f"hf:{bert}").encode(TEXTS, cache=False)
    expected = torch.stack([hidden(bert, text, 32).mean(0) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "pool"),
    [
        ({"pooling_mode": "mean"}, lambda h: h.mean(0)),
        ({"pooling_mode": "cls"}, lambda h: h[0]),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, lambda h: h.amax(0)),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            lambda h: torch.cat([h[0], h.mean(0)]),
        ),
    ],
)
def test_sentence_folder_pools_as_it_says(
    sentence: Callable[..., Path], settings: dict[str, Any], pool: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    folder = sentence(settings, "Normalize")
    tower = encoder(f"hf:{folder}")
    expected = functional.normalize(torch.stack([pool(hidden(folder, text, 8)) for text in TEXTS]))
    np.testing.assert_allclose(tower.encode(TEXTS, cache=False), expected, atol=1e-5)
    np.testing.assert_allclose(tower.class_text(TEXTS), expected, atol=1e-5)
    assert tower.truncated(TEXTS).tolist() == [False, False, True, False]  # type: ignore[attr-defined]


def test_sentence_folder_with_dense_lower_case_and_prompt(sentence: Callable[..., Path]) -> None:
    from safetensors.torch import save_file

    folder = sentence({"pooling_mode": "mean"}, "Dense", settings={"max_seq_length": 16, "do_lower_case": True})
    weight, bias = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)), torch.arange(5.0)
    write(folder / "2_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    settings = {"prompts": {"query": "a card "}, "default_prompt_name": "query"}
    write(folder / "config_sentence_transformers.json", settings)
    vectors = encoder(f"hf:{folder}").encode(["THE Cat"], cache=False)
    expected = torch.tanh(hidden(folder, "a card the cat", 16).mean(0) @ weight.T + bias)
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


def test_sentence_transformers_itself_agrees(sentence: Callable[..., Path]) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = sentence({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "Normalize")
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder(f"hf:{folder}").encode(TEXTS, cache=False), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": "evil.package.Module"}, "'evil.package.Module', which is not known"),
        ({"modules": "sentence_transformers.models.WordWeights"}, "WordWeights"),
        ({"path": "../elsewhere"}, "outside the model's folder"),
        ({"pooling": {"pooling_mode": "weightedmean"}}, "pooling 'weightedmean' is not known"),
        ({"dense": {"activation_function": "os.system"}}, "'system' is not supported"),
    ],
)
def test_unknown_modules_are_named_and_not_imported(
    sentence: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    folder = sentence(changes.get("pooling", {"pooling_mode": "mean"}), "Dense")
    write(folder / "2_Dense" / "config.json", changes.get("dense", {}))
    rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    rows[2]["type"] = changes.get("modules", rows[2]["type"])
    rows[2]["path"] = changes.get("path", rows[2]["path"])
    write(folder / "modules.json", rows)
    with pytest.raises(BadInput, match=message):
        encoder(f"hf:{folder}")


def test_two_towers_agree_with_transformers(two_towers: Path, pictures: Sequence[Image.Image]) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    tower = encoder(f"hf:{two_towers}")
    found = tower.encode(pictures, tuple(tower.outputs), cache=False)
    model = AutoModel.from_pretrained(two_towers).eval()
    siglip = model.config.model_type == "siglip"
    pixels = AutoImageProcessor.from_pretrained(two_towers, backend="pil")(images=list(pictures), return_tensors="pt")
    padding = {"padding": "max_length", "max_length": 12} if siglip else {"padding": True}
    tokens = AutoTokenizer.from_pretrained(two_towers)(TEXTS[:2], return_tensors="pt", **padding)
    if siglip:
        del tokens["attention_mask"]
    with torch.no_grad():
        both = model(**pixels, **tokens)
    np.testing.assert_allclose(found["aligned"], functional.normalize(both.image_embeds), atol=1e-5)
    np.testing.assert_allclose(functional.normalize(torch.tensor(found["pooled"])), found["aligned"], atol=1e-5)
    np.testing.assert_allclose(tower.class_text(TEXTS[:2]), functional.normalize(both.text_embeds), atol=1e-5)
    assert tower.logit_scale == pytest.approx(model.logit_scale.exp().item())
    logits = tower.logit_scale * found["aligned"] @ tower.class_text(TEXTS[:2]).T
    bias = model.logit_bias.item() if siglip else 0.0
    np.testing.assert_allclose(logits + bias, both.logits_per_image.detach(), atol=1e-4)
    assert tower.aligned == "aligned" and found["local"].shape == (3, 4, 16)
    assert ("pre" in found) is not siglip
    assert tower.class_text([]).shape[0] == 0


def test_vision_model_gives_first_token_and_patches(vision: Path, pictures: Sequence[Image.Image]) -> None:
    from transformers import AutoImageProcessor, AutoModel

    tower = encoder(f"hf:{vision}")
    found = tower.encode(pictures, ("pooled", "local"), cache=False)
    pixels = AutoImageProcessor.from_pretrained(vision, backend="pil")(images=list(pictures), return_tensors="pt")
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(vision).eval()(**pixels).last_hidden_state
    np.testing.assert_allclose(found["pooled"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(found["local"], tokens[:, -4:], atol=1e-5)
    assert tower.aligned is None
    with pytest.raises(BadInput, match="no text side"):
        tower.class_text(["cat"])


def test_views_are_parts_of_the_image(vision: Path, pictures: Sequence[Image.Image]) -> None:
    tower = encoder(f"hf:{vision}")
    views = tower.encode(pictures, views=3, cache=False)
    assert views.shape == (3, 3, 16)
    np.testing.assert_allclose(views[:, 0], tower.encode(pictures, cache=False), atol=1e-6)
    assert not np.allclose(views[:, 1], views[:, 2])


def test_unreadable_image_has_its_place(vision: Path, pictures: Sequence[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(BadItem, match=r"bad\.png") as caught:
        encoder(f"hf:{vision}").encode([pictures[0], tmp_path / "bad.png"], cache=False)
    assert caught.value.index == 1


def test_identity_follows_the_files_not_the_name(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "copy")
    here, there = encoder(f"hf:{bert}"), encoder(f"hf:{tmp_path / 'copy'}")
    assert here.identity == there.identity and here.name != there.name
    (tmp_path / "copy" / "README.md").write_text("words", encoding="utf-8")
    assert encoder(f"hf:{tmp_path / 'copy'}").identity == here.identity
    edit(tmp_path / "copy" / "config.json", layer_norm_eps=1e-3)
    assert encoder(f"hf:{tmp_path / 'copy'}").identity != here.identity


def test_bfloat16_on_demand(bert: Path) -> None:
    exact, fast = encoder(f"hf:{bert}"), encoder(f"hf:{bert}", precision="bfloat16")
    assert exact.fingerprint != fast.fingerprint and exact.identity == fast.identity
    a, b = exact.class_text(TEXTS), fast.class_text(TEXTS)
    assert (a * b).sum(1).min() > 0.99 and not np.array_equal(a, b)


def test_adapter_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(bert, folder)
    write(folder / "adapter_config.json", {"base_model_name_or_path": "somewhere/else"})
    with pytest.raises(BadInput, match="adapter without its base model"):
        encoder(f"hf:{folder}")


def test_missing_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    shutil.copytree(bert, folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items() if "layer.1" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="lacks 16 of the weights"):
        encoder(f"hf:{folder}")


@pytest.mark.parametrize("name", ["hf:", "hf:./nothing", "hf:~/nothing", "hf:/nothing/here", "hf:a/b/c", "hf:a\\b"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        encoder(name)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no config\.json|cannot be loaded") as caught:
        encoder(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_hub_name_without_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="cannot be had from the hub") as caught:
        encoder("hf:some/model")
    assert "\n" not in str(caught.value)


def test_hub_name_becomes_its_snapshot(monkeypatch: pytest.MonkeyPatch, bert: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        asked.append((name, revision))
        return str(bert)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert encoder("hf:org/model@abc").revision == bert.name  # type: ignore[attr-defined]
    encoder("hf:model")
    assert asked == [("org/model", "abc"), ("model", None)]


def test_without_transformers_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.encode.hf.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r'pip install "handful\[hub\]"'):
        encoder("hf:org/model")


def test_nothing_is_printed_and_settings_stay(bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    encoder(f"hf:{bert}").encode(TEXTS, cache=False)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
