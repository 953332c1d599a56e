"""Folders from strangers: code, pickles, paths elsewhere and downloads are refused before they are looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from handful.encode import encoder
from handful.errors import BadInput


@pytest.fixture
def folder(bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT to spoil."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | changes), encoding="utf-8")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        encoder(f"hf:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "tf_model.h5"])
def test_pickled_weights_are_refused_with_the_cure(folder: Path, file: str) -> None:
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / file)
    weights.unlink()
    refused(folder, rf"weights are in {file}.*save_pretrained\(FOLDER\).*model\.safetensors")


def test_a_pickle_beside_safetensors_is_not_read(folder: Path) -> None:
    before = encoder(f"hf:{folder}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    after = encoder(f"hf:{folder}")
    assert after.identity == before.identity
    assert np.array_equal(after.encode(["cat"], cache=False), before.encode(["cat"], cache=False))


def test_no_weights_at_all_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}, r"config\.json asks for code of its own"),
        ("config.json", {"auto_map": {"AutoModel": "other/repo--evil.Model"}}, "code of its own"),
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}, "code of its own"),
        ("config.json", {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}}, "code of its own"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "tokenizer_config.json asks"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.P"}}, "preprocessor_config.json asks"),
        ("processor_config.json", {"image_processor": {"auto_map": {"AutoImageProcessor": "e.P"}}}, "code of its own"),
        ("1_Pooling/config.json", {"auto_map": {"x": "evil.P"}}, "1_Pooling/config.json asks"),
        ("config.json", {"attn_implementation": "evil/kernel"}, "asks for a compute kernel"),
        ("config.json", {"_attn_implementation": {"": "evil/kernel"}}, "asks for a compute kernel"),
        ("config.json", {"experts_implementation": "evil/kernel"}, "asks for a compute kernel"),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}, "asks for a compute kernel"),
        ("config.json", {"backbone": "evil/model", "use_pretrained_backbone": True}, "would have to be fetched"),
        (
            "config.json",
            {"model_type": "timm_wrapper", "architecture": "hf-hub:evil/model"},
            "would have to be fetched",
        ),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "names a file elsewhere"),
        ("tokenizer_config.json", {"tokenizer_file": "..\\..\\x"}, "names a file elsewhere"),
        ("tokenizer_config.json", {"sp_model_file": "\\\\host\\share\\x"}, "names a file elsewhere"),
        ("config.json", {"num_hidden_layers": 10**8}, "more than the 1,024 that are believed"),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "../../other.safetensors"}},
            "no safetensors file beside",
        ),
        ("model.safetensors.index.json", {"weight_map": {"a": "pytorch_model.bin"}}, "no safetensors file beside"),
        ("model.safetensors.index.json", {"weight_map": {"a": "absent.safetensors"}}, "no safetensors file beside"),
        ("model.safetensors.index.json", {"weight_map": ["x"]}, "lists no weights"),
    ],
)
def test_what_asks_for_more_than_reading_is_refused(
    folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    (folder / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    edit(folder / file, **changes)
    refused(folder, message)


def test_null_and_plain_settings_are_fine(folder: Path) -> None:
    before = encoder(f"hf:{folder}").encode(["the cat"], cache=False)
    edit(folder / "config.json", attn_implementation="eager", backbone=None)
    edit(folder / "tokenizer_config.json", tokenizer_file=None, vocab_file="vocab.txt")
    np.testing.assert_allclose(encoder(f"hf:{folder}").encode(["the cat"], cache=False), before, atol=1e-5)


def test_weights_in_shards_are_read(folder: Path) -> None:
    before = encoder(f"hf:{folder}").encode(["the cat"], cache=False)
    tensors = load_file(folder / "model.safetensors")
    names, shards = sorted(tensors), {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name].clone() for name in some}, folder / file, metadata={"format": "pt"})
        shards |= dict.fromkeys(some, file)
    (folder / "model.safetensors").unlink()
    edit(folder / "model.safetensors.index.json", metadata={"total_size": 1}, weight_map=shards)
    np.testing.assert_allclose(encoder(f"hf:{folder}").encode(["the cat"], cache=False), before, atol=1e-6)


@pytest.mark.parametrize("modules", ["{}", "[3]", '[{"type": 3}]', "[" * 100_000])
def test_modules_that_are_no_list_are_refused(folder: Path, modules: str) -> None:
    (folder / "modules.json").write_text(modules, encoding="utf-8")
    refused(folder, "modules.json")


def test_a_huge_json_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handful.encode.hf_safety.MOST_JSON", 1000)
    refused(folder, "bytes, more than any such file needs")


def test_revision_is_that_of_the_snapshot(bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = shutil.copytree(bert, tmp_path / commit)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(snapshot))
    assert encoder("hf:org/model").revision == commit
    assert encoder(f"hf:{bert}").revision is None and encoder("minilm").revision is None
