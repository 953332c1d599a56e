"""Adapters in peft's folders, read and written: what the models give is the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from handful.errors import BadInput
from handful.tune import BRA, IA3, Change, Delta, DoRA, LoRA, Own, Placed, Where, ia3
from handful.tune.peft_format import read_peft, write_peft

IDS = torch.tensor([[2, 7, 9, 4, 3], [2, 8, 1, 6, 3]])
MODELS = ("bert", "llama", "t5", "gpt2")
ROLES = {"bert": ("q", "v", "up"), "llama": ("q", "v", "gate"), "t5": ("q", "v", "up"), "gpt2": ("qkv", "down")}


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()


@pytest.fixture(params=MODELS)
def named(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, request.getfixturevalue(request.param)


@torch.no_grad()
def out(model: nn.Module) -> Tensor:
    if hasattr(model, "config") and model.config.is_encoder_decoder:  # type: ignore[union-attr]
        return model(input_ids=IDS, decoder_input_ids=IDS[:, :3]).logits  # type: ignore[no-any-return]
    given = model(IDS)
    return given.logits if hasattr(given, "logits") else given.last_hidden_state  # type: ignore[no-any-return]


def moved(module: nn.Module) -> None:
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=g)


def placed(name: str, model: nn.Module, kind: str) -> tuple[Placed, ...]:
    where = Where(ROLES[name])
    first = where.find(model)[0].name
    lora: dict[str, tuple[Placed, ...]] = {
        "lora": (Placed(LoRA(3, 5.0), where),),
        "rs": (Placed(LoRA(2, 5.0, rs=True), where),),
        "dora": (Placed(DoRA(3, 4.0), where),),
        "bra": (Placed(BRA(3, 0.5), where),),
        "ranks": (Placed(LoRA(2, 3.0), Where((), sites=(first,))), Placed(LoRA(4, 9.0), Where(("o",)))),
    }
    if kind == "ia3":
        return ia3(model) if name != "gpt2" else (Placed(IA3(), Where(("qkv",))), Placed(IA3("in"), Where(("down",))))
    return lora[kind]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["lora", "rs", "dora", "bra", "ranks", "ia3"])
def test_peft_gives_what_was_written(named: tuple[str, nn.Module], kind: str, tmp_path: Path) -> None:
    name, model = named
    delta = Delta.begin(model, placed(name, model, kind), torch.Generator().manual_seed(0))
    moved(delta)
    with delta.attached(model):
        mine = out(model)
    assert (mine - out(model)).abs().max() > 1e-3
    write_peft(delta, model, tmp_path, base="tiny")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    torch.testing.assert_close(out(theirs), mine, atol=1e-5, rtol=0)
    learnt = sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n or "ia3_" in n)
    assert kind == "bra" or learnt == delta.trainable()
    again = read_peft(tmp_path, model)
    with again.attached(model):
        torch.testing.assert_close(out(model), mine, atol=1e-6 if kind == "bra" else 0, rtol=0)


CONFIGS: dict[str, dict[str, Any]] = {
    "lora": {"r": 3, "lora_alpha": 5, "lora_dropout": 0.1},
    "dora": {"r": 2, "lora_alpha": 4, "use_dora": True},
    "rs": {"r": 2, "lora_alpha": 4, "use_rslora": True, "rank_pattern": {"0.*(q|query|q_proj)": 4}},
}
TARGETS = {"bert": ["query", "value", "output.dense"], "llama": ["q_proj", "v_proj", "down_proj"],
           "t5": ["q", "v", "wo"], "gpt2": ["c_attn", "mlp.c_proj"]}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*CONFIGS, "ia3"])
@pytest.mark.parametrize("mode", ["branch", "weight"])
def test_what_peft_wrote_is_read(named: tuple[str, nn.Module], kind: str, mode: str, tmp_path: Path) -> None:
    name, model = named
    config = (
        peft.IA3Config(target_modules=TARGETS[name], feedforward_modules=TARGETS[name][-1:])
        if kind == "ia3"
        else peft.LoraConfig(target_modules=TARGETS[name], **CONFIGS[kind])
    )
    theirs = peft.get_peft_model(copy.deepcopy(model), config).eval()
    moved(theirs)
    theirs.save_pretrained(tmp_path)
    delta = read_peft(tmp_path, model)
    with delta.attached(model, mode):  # type: ignore[arg-type]
        torch.testing.assert_close(out(model), out(theirs), atol=1e-5, rtol=0)
    assert delta.trainable() == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


@pytest.mark.filterwarnings("ignore")
def test_a_dropped_out_dora_learns_as_pefts(llama: nn.Module) -> None:
    """With dropout in training: the same draws, the same answer and gradients."""
    config = peft.LoraConfig(r=2, lora_alpha=4, use_dora=True, lora_dropout=0.4, target_modules=["q_proj"])
    theirs = peft.get_peft_model(copy.deepcopy(llama), config).train()
    moved(theirs)
    delta = Delta.begin(llama, [Placed(DoRA(2, 4.0, 0.4), Where(("q",)))], torch.Generator())
    for holder in delta.holders:
        module = theirs.get_submodule(f"base_model.model.{holder.site}")
        holder.A.data = module.lora_A["default"].weight.data.clone()
        holder.B.data = module.lora_B["default"].weight.data.clone()
        holder.m.data = module.lora_magnitude_vector["default"].weight.data.clone()
    llama.train()
    try:
        with delta.attached(llama):
            torch.manual_seed(5)
            mine = llama(IDS).logits
            mine.square().sum().backward()
    finally:
        llama.eval()
    torch.manual_seed(5)
    given = theirs(IDS).logits
    given.square().sum().backward()
    torch.testing.assert_close(mine, given, atol=1e-5, rtol=0)
    for holder in delta.holders:
        module = theirs.get_submodule(f"base_model.model.{holder.site}")
        torch.testing.assert_close(holder.A.grad, module.lora_A["default"].weight.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            holder.m.grad, module.lora_magnitude_vector["default"].weight.grad, atol=1e-4, rtol=1e-4
        )
    for parameter in llama.parameters():
        parameter.grad = None


def test_what_peft_has_no_form_for_is_refused(bert: nn.Module, tmp_path: Path) -> None:
    def write(*changes: tuple[Change, Where]) -> None:
        every = [Placed(change, where) for change, where in changes]
        write_peft(Delta.begin(bert, every, torch.Generator()), bert, tmp_path)

    with pytest.raises(BadInput, match=r"peft has no 'own' on encoder\.layer\.0"):
        write((Own(), Where(("q",))))
    with pytest.raises(BadInput, match="is changed twice"):
        write((LoRA(2), Where(("q",))), (LoRA(2), Where(("q",))))
    with pytest.raises(BadInput, match="folders of their own"):
        write((LoRA(2), Where(("q",))), (IA3(), Where(("v",))))
    with pytest.raises(BadInput, match="one kind, dropout and scale"):
        write((LoRA(2), Where(("q",))), (LoRA(2, dropout=0.5), Where(("v",))))
    with pytest.raises(BadInput, match="no linear map"):
        write((LoRA(2), Where(("position",))))
    with pytest.raises(BadInput, match="no adapter to write"):
        write()


def test_a_folder_that_does_not_fit_is_refused(bert: nn.Module, llama: nn.Module, tmp_path: Path) -> None:
    delta = Delta.begin(bert, [Placed(LoRA(2), Where(("q",)))], torch.Generator())
    write_peft(delta, bert, tmp_path)
    with pytest.raises(BadInput, match=r"the model has no encoder\.layer\.0"):
        read_peft(tmp_path, llama)
    file, config = tmp_path / "adapter_config.json", json.loads((tmp_path / "adapter_config.json").read_text())
    for wrong, match in (
        ({"peft_type": "VERA"}, "kind 'VERA'"),
        ({"bias": "all"}, "trained biases"),
        ({"init_lora_weights": "pissa"}, "began by changing the base"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save"),
        ({"use_dora": True}, r"has tensors \['A', 'B'\], not"),
        ({"lora_alpha": "much"}, "is no number"),
        ({"lora_alpha": float("nan")}, "alpha is nan"),
        ({"alpha_pattern": [4]}, "is no number"),
    ):
        file.write_text(json.dumps(config | wrong), encoding="utf-8")
        with pytest.raises(BadInput, match=match):
            read_peft(tmp_path, bert)
    file.write_text(json.dumps(config), encoding="utf-8")
    model = tmp_path / "adapter_model.safetensors"
    tensors = load_file(model)
    name = next(iter(tensors))
    for broken, match in (
        (tensors[name].mT, "shape"),
        (tensors[name] * float("nan"), "must be finite"),
        (tensors[name].sum(), r"of shape \(rank, in\), not \(\)"),
    ):
        save_file({**tensors, name: broken.contiguous()}, model)
        with pytest.raises(BadInput, match=match):
            read_peft(tmp_path, bert)
    save_file({}, model)
    with pytest.raises(BadInput, match="holds no tensor"):
        read_peft(tmp_path, bert)
    save_file({**tensors, "base_model.model.x.lora_embedding_A": tensors[name].clone()}, model)
    with pytest.raises(BadInput, match="lora_embedding_A"):
        read_peft(tmp_path, bert)
    model.unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match="a pickle"):
        read_peft(tmp_path, bert)
