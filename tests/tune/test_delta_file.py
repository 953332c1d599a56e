"""A delta in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from handful.errors import BadInput
from handful.tune import Delta, LoRA, Own, Placed, Where, load_delta, save_delta


def moved(model: nn.Module) -> Delta:
    placed = [Placed(LoRA(2, 3.0), Where(("q", "v"))), Placed(Own(), Where(("norm",), "bias"))]
    delta = Delta.begin(model, placed, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in delta.parameters():
            parameter += 0.1
    return delta


def test_what_is_read_is_what_was_written(bert: nn.Module, tmp_path: Path) -> None:
    delta, ids = moved(bert), torch.tensor([[1, 2, 3]])
    save_delta(delta, tmp_path / "d.safetensors")
    again = load_delta(tmp_path / "d.safetensors", bert)
    assert again.placed() == delta.placed() and again.fingerprint == delta.fingerprint
    found = []
    for one in (delta, again):
        with one.attached(bert), torch.no_grad():
            found.append(bert(ids).last_hidden_state)
    assert torch.equal(*found)


def test_a_file_that_does_not_fit_is_refused(bert: nn.Module, clip: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    save_delta(moved(bert), path)
    with pytest.raises(BadInput, match=r"the model has no encoder\.layer\.0\.attention\.self\.query\.weight"):
        load_delta(path, clip)
    whole, data = load_file(path), path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]

    def written(tensors: dict[str, torch.Tensor], described: object) -> Path:
        save_file(tensors, path, {"handful-delta": json.dumps(described)})
        return path

    described = json.loads(header["handful-delta"])
    with pytest.raises(BadInput, match="belong to a model with the fingerprint abc"):
        load_delta(written(whole, described | {"fingerprint": "abc"}), bert)
    with pytest.raises(BadInput, match=r"no change 'os\.system'"):
        load_delta(written(whole, described | {"changes": [{**described["changes"][0], "change": "os.system"}]}), bert)
    with pytest.raises(BadInput, match=r"tensor '0\.A' is missing"):
        load_delta(written({k: v for k, v in whole.items() if k != "0.A"}, described), bert)
    with pytest.raises(BadInput, match="must be finite"):
        load_delta(written({**whole, "0.A": whole["0.A"] * float("nan")}, described), bert)
    with pytest.raises(BadInput, match="no changes of a model"):
        load_delta(written(whole, {"changes": [1]}), bert)
    path.write_bytes(b"nonsense")
    with pytest.raises(BadInput, match="cannot be read"):
        load_delta(path, bert)
