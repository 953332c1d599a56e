"""An encoder in parts is the same encoder, needs nothing else, and takes no other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load, save

from handful.encode import encoder, encoder_from_parts
from handful.encode.efficientnet import tensors_sha256
from handful.encode.weights import LITE0_TENSORS
from handful.errors import BadInput, HandfulError
from handful.protocols import Encoder

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
TEXTS = ["Where is my card?", "word " * 300]


@pytest.fixture(scope="module")
def minilm() -> dict[str, bytes]:
    return encoder("minilm").parts()


@pytest.fixture(scope="module")
def lite0() -> dict[str, bytes]:
    return encoder("efficientnet-lite0").parts()


@pytest.fixture(scope="module")
def hub(bert: Path) -> dict[str, bytes]:
    return encoder(f"hf:{bert}").parts()


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no package with weights were installed."""
    monkeypatch.setattr("handful.encode.weights.find_spec", lambda name: None)


def same(one: Encoder, other: Encoder, items: Any, outputs: tuple[str, ...] = ("pooled",)) -> bool:
    """Whether both are the same encoder to the last bit."""
    found = [e.encode(items, [*outputs, "pooled"], cache=False) for e in (one, other)]
    arrays = [f if isinstance(f, dict) else {"pooled": f} for f in found]
    bits = all(arrays[0][output].tobytes() == arrays[1][output].tobytes() for output in arrays[0])
    return bits and (one.identity, one.fingerprint, one.options) == (other.identity, other.fingerprint, other.options)


@pytest.mark.parametrize("options", [{}, {"long": "mean"}])
def test_text_encoder_comes_back_without_wheels(
    minilm: Mapping[str, bytes], options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    here = encoder("minilm", **options)
    here.encode(["a"], cache=False)
    request.getfixturevalue("no_wheels")
    with pytest.raises(BadInput, match="not installed"):
        encoder("minilm").encode(["a"], cache=False)
    there = encoder_from_parts("minilm", minilm, options)
    assert same(here, there, TEXTS) and there.class_text(["a card"], cache=False).shape == (1, 384)
    assert there.parts() == minilm


def test_image_encoder_comes_back_with_its_text_side(
    lite0: Mapping[str, bytes], request: pytest.FixtureRequest
) -> None:
    here = encoder("efficientnet-lite0", crop=(0, 0, 0.5, 1))
    here.encode([PICTURE], ("aligned",), cache=False)
    request.getfixturevalue("no_wheels")
    there = encoder_from_parts("efficientnet-lite0", lite0, json.loads(json.dumps(here.options)))
    assert same(here, there, [PICTURE], ("middle", "local", "aligned"))
    assert there.class_text(["a palace"], cache=False).shape == (1, 384)
    assert there.parts() == lite0


def test_the_remembered_hash_is_that_of_the_weights(lite0: Mapping[str, bytes]) -> None:
    assert tensors_sha256(lite0["model.safetensors"]) == LITE0_TENSORS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.safetensors": None}, "'model.safetensors' is missing"),
        ({"tokenizer.json": b"{}"}, "tokenizer.json is not the file it should be"),
        ({"model.safetensors": b"other"}, "is not the file it should be"),
        ({"../evil.py": b"x"}, "'../evil.py' does not belong to it"),
    ],
)
def test_other_files_are_refused(minilm: Mapping[str, bytes], change: dict[str, Any], message: str) -> None:
    parts = {name: data for name, data in {**minilm, **change}.items() if data is not None}
    with pytest.raises(BadInput, match=message):
        encoder_from_parts("minilm", parts)


def test_other_image_weights_are_refused(lite0: Mapping[str, bytes]) -> None:
    tensors = load(lite0["model.safetensors"])
    tensors["_fc.bias"][7] += 1e-3
    for weights in (save(tensors), b"no tensors", lite0["model.safetensors"][:-4]):
        with pytest.raises(BadInput, match=r"not the file it should be|model\.safetensors is damaged"):
            encoder_from_parts("efficientnet-lite0", {**lite0, "model.safetensors": weights})
    with pytest.raises(BadInput, match="is missing"):
        encoder_from_parts("efficientnet-lite0", {"model.safetensors": lite0["model.safetensors"]})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "no encoder 'resnet'"),
        ("minilm", {"tiles": [2, 2]}, "reads texts"),
        ("minilm", {"device": "cuda"}, "no option 'device'"),
        ("minilm", {"long": 3}, "long is 3"),
    ],
)
def test_names_and_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        encoder_from_parts(name, {}, options)


def test_hub_text_encoder_comes_back_under_any_name(bert: Path) -> None:
    here = encoder(f"hf:{bert}", long="mean")
    parts = here.parts()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(parts)
    there = encoder_from_parts("hf:nobody/nothing", parts, here.options)
    assert same(here, there, ["the cat", "cat " * 50])
    assert there.name == "hf:nobody/nothing" and there.parts() == parts


def test_hub_image_encoder_comes_back(two_towers: Path) -> None:
    here = encoder(f"hf:{two_towers}", tiles=(1, 2))
    there = encoder_from_parts("hf:x", here.parts(), here.options)
    assert same(here, there, [PICTURE], ("aligned", "local"))
    assert np.array_equal(here.class_text(["a cat"]), there.class_text(["a cat"]))


def test_the_temporary_folder_goes_with_the_encoder(bert: Path) -> None:
    there = encoder_from_parts("hf:x", encoder(f"hf:{bert}").parts())
    folder = there._source.folder  # type: ignore[attr-defined]
    assert folder.is_dir() and folder.name.startswith("handful-")
    del there
    import gc

    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    ["../up.json", "/abs.json", "a\\b.json", "C:evil.json", "a//b.json", "a/../b.json", "./a.json", ".hidden.json",
     "nul.json", "a/CON", "tail./a.json", "x" * 300 + ".json", "CONFIG.json", "ünï.json", "", "a\n.json"],
)  # fmt: skip
def test_names_that_are_more_than_names_are_refused(hub: Mapping[str, bytes], name: str) -> None:
    with pytest.raises(BadInput, match=r"file named|differ in case") as caught:
        encoder_from_parts("hf:x", {**hub, name: b"{}"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["code.py", "weights.bin", "model.pkl", "readme.md", "a.json/code.py"])
def test_files_no_model_needs_are_refused(hub: Mapping[str, bytes], name: str) -> None:
    with pytest.raises(BadInput, match="of a kind that no model needs"):
        encoder_from_parts("hf:x", {**hub, name: b"x"})


def test_a_file_cannot_be_a_folder_too(hub: Mapping[str, bytes]) -> None:
    with pytest.raises(HandfulError, match="cannot be unpacked"):
        encoder_from_parts("hf:x", {**hub, "config.json/a.json": b"{}"})


def test_too_many_files_are_refused() -> None:
    with pytest.raises(BadInput, match="300 files"):
        encoder_from_parts("hf:x", {f"{i}.json": b"{}" for i in range(300)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**12}, "claims|cannot be loaded"),
        ({"hidden_size": 1 << 20}, "claims|cannot be loaded"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1,000,000,000, more than"),
        ({"num_hidden_layers": 1000, "hidden_size": 4096}, "claims"),
        ({"num_attention_heads": 0}, "cannot be loaded"),
        ({"model_type": ["bert"]}, "cannot be loaded"),
        ({"hidden_act": "os.system"}, "cannot be loaded"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "code of its own"),
    ],
)
def test_hostile_settings_are_refused(hub: Mapping[str, bytes], changes: dict[str, Any], message: str) -> None:
    config = json.dumps(json.loads(hub["config.json"]) | changes).encode()
    with pytest.raises(BadInput, match=message) as caught:
        encoder_from_parts("hf:x", {**hub, "config.json": config})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"3"])
def test_damaged_files_are_one_line(hub: Mapping[str, bytes], file: str, data: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        encoder_from_parts("hf:x", {**hub, file: data})
    assert "\n" not in str(caught.value)
