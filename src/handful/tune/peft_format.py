"""Adapters as the library peft keeps them: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

LoRA, rank-stabilised LoRA, DoRA and (IA)^3, read and written with the same numbers. Such a folder says nothing about
the weights it was made for: that the model is the right one is for who reads it to know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import BadInput, nearest
from handful.files import whole_file
from handful.tune.change import Change
from handful.tune.delta import Delta, Holder, Placed
from handful.tune.dora import DoRA
from handful.tune.ia3 import IA3
from handful.tune.lora import LoRA
from handful.tune.lora_sb import BRA
from handful.tune.sites import Where, is_linear

CONFIG, MODEL = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_NAMES = {"lora_A.weight": "A", "lora_B.weight": "B", "lora_magnitude_vector": "m", "ia3_l": "l"}
_UNKNOWN = (
    "modules_to_save", "trainable_token_indices", "layer_replication", "lora_bias", "target_parameters", "use_qalora",
    "alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config", "velora_config", "monteclora_config",
)  # fmt: skip
"""Settings that change what an adapter does, in ways that are not known here."""
_PLAIN = (True, False, None, "gaussian", "orthogonal", "eva")
"""Beginnings of LoRA after which the base is what it was."""


def write_peft(delta: Delta, model: nn.Module, folder: str | Path, *, base: str | None = None) -> None:
    """Write ``delta`` as a peft adapter of ``model``.

    Args:
        delta: LoRA with or without DoRA, or (IA)^3, on linear maps, once a site. ``W + s B R A`` becomes LoRA with
            ``B R`` as its B.
        model: the one it belongs to; peft finds modules in it by the ends of their names.
        folder: made if it is not there.
        base: name of the model, for peft to load it.

    Raises:
        BadInput: peft has no such change, or cannot tell its sites from others.
    """
    delta.check_base(model)
    rows: dict[str, tuple[LoRA | IA3, dict[str, Tensor]]] = {}
    for holder in delta.holders:
        assert isinstance(holder, Holder)
        if not is_linear(model.get_submodule(holder.site)):
            raise BadInput(f"{holder.site} is no linear map; only those are written for peft")
        if holder.site in rows:
            raise BadInput(f"{holder.site} is changed twice; peft keeps one change a site")
        rows[holder.site] = _row(holder)
    if not rows:
        raise BadInput("nothing of the model is changed, so that there is no adapter to write")
    names = list(rows)
    changes = {site: change for site, (change, _) in rows.items()}
    for name, _ in model.named_modules():
        if name not in names and any(name.endswith(f".{site}") for site in names):
            raise BadInput(f"peft would change {name} too, as its name ends like that of another site")
    turned = any(type(model.get_submodule(site)).__name__ == "Conv1D" for site in names)
    common = {"base_model_name_or_path": base, "inference_mode": True, "target_modules": names, "task_type": None}
    if all(isinstance(change, IA3) for change in changes.values()):
        inner = [site for site, change in changes.items() if isinstance(change, IA3) and change.side == "in"]
        config = {"peft_type": "IA3", "feedforward_modules": inner, "init_ia3_weights": True}
    else:
        config = {"peft_type": "LORA", "bias": "none", "init_lora_weights": True, **_lora_config(changes)}
    tensors = {
        f"{_PREFIX}{site}.{theirs}": mine[ours].detach().contiguous()
        for site, (_, mine) in rows.items()
        for theirs, ours in _NAMES.items()
        if ours in mine
    }
    from safetensors.torch import save

    with whole_file(Path(folder) / MODEL) as file:
        file.write(save(tensors, {"format": "pt"}))
    with whole_file(Path(folder) / CONFIG) as file:
        file.write(json.dumps({**config, **common, "fan_in_fan_out": turned}, indent=2).encode())


def read_peft(folder: str | Path, model: nn.Module) -> Delta:
    """The adapter in ``folder``, as a delta of ``model``.

    Raises:
        BadInput: it is no such folder, or damaged; the adapter does what is not known here; the model has no such
            modules, or of other shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder)
    if not (path / MODEL).exists() and (path / "adapter_model.bin").exists():
        raise BadInput(f"{path} holds adapter_model.bin, a pickle, which is not read; save it as safetensors with peft")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(path / MODEL)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as a peft adapter: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") not in ("LORA", "IA3"):
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise BadInput(f"{path} is an adapter of the kind {kind!r}; LORA and IA3 are read")
    _refuse_unknown(config, path)
    by_site = _by_site(tensors, path)
    if not by_site:
        raise BadInput(f"{path / MODEL} holds no tensor, so that it changes nothing; take it from its source again")
    modules = {name: module for name, module in model.named_modules() if name}
    placed = []
    for site, mine in by_site.items():
        if site not in modules:
            raise BadInput(f"the model has no {site}, which the adapter in {path} changes{nearest(site, modules)}")
        change = _lora(config, site, mine, path) if config["peft_type"] == "LORA" else _ia3(site, mine, path)
        placed.append(Placed(change, Where((), sites=(site,))))
    delta = Delta.begin(model, placed, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for holder in delta.holders:
            assert isinstance(holder, Holder)
            given = by_site[holder.site]
            for name, tensor in holder.tensors.items():
                theirs = given[name].flatten() if name in ("l", "m") else given[name]
                if theirs.shape != tensor.shape or not bool(torch.isfinite(theirs).all()):
                    raise BadInput(
                        f"{path}: {name} of {holder.site} must be finite, of shape {tuple(tensor.shape)}, "
                        f"not {tuple(theirs.shape)}"
                    )
                tensor.copy_(theirs)
    return delta


def _row(holder: Holder) -> tuple[LoRA | IA3, dict[str, Tensor]]:
    """What a holder is to peft: a change and its tensors in peft's shapes."""
    change, mine = holder.change, holder.tensors
    if holder.parameter == "weight":
        if isinstance(change, BRA):
            plain = LoRA(change.rank, change.scale * change.rank, change.dropout)
            return plain, {"A": mine["A"], "B": mine["B"] @ mine["R"]}
        if isinstance(change, IA3):
            return change, {"l": mine["l"][None] if change.side == "in" else mine["l"][:, None]}
        if isinstance(change, LoRA):
            return change, mine
    raise BadInput(f"peft has no {change.key!r} on {holder.site}.{holder.parameter}")


def _lora_config(given: Mapping[str, LoRA | IA3]) -> dict[str, Any]:
    """peft's settings: one rank and alpha for all, and patterns of names for those that have others."""
    changes = {site: change for site, change in given.items() if isinstance(change, LoRA)}
    if len(changes) < len(given):
        raise BadInput("peft keeps LoRA and (IA)^3 in folders of their own; write them apart")
    first = next(iter(changes.values()))
    for change in changes.values():
        if (type(change), change.rs, change.dropout) != (type(first), first.rs, first.dropout):
            raise BadInput(f"peft has one kind, dropout and scale for all sites, not {first} and {change}")
    return {
        "r": first.rank,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout,
        "use_rslora": first.rs,
        "use_dora": isinstance(first, DoRA),
        "rank_pattern": {re.escape(site): c.rank for site, c in changes.items() if c.rank != first.rank},
        "alpha_pattern": {re.escape(site): c.alpha for site, c in changes.items() if c.alpha != first.alpha},
    }


def _refuse_unknown(config: Mapping[str, Any], path: Path) -> None:
    for name in _UNKNOWN:
        if config.get(name):
            raise BadInput(f"the adapter in {path} has {name}={str(config[name])[:60]}, which is not read")
    if config.get("bias", "none") != "none":
        raise BadInput(f"the adapter in {path} has trained biases (bias={config['bias']!r}), which are not read")
    if config.get("init_lora_weights", True) not in _PLAIN:
        raise BadInput(
            f"the adapter in {path} began by changing the base (init_lora_weights={config['init_lora_weights']!r}); "
            "convert it to plain LoRA with peft first"
        )


def _by_site(tensors: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors by site and by our name."""
    out: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        short = key.removeprefix(_PREFIX)
        for theirs, ours in _NAMES.items():
            if short.endswith((f".{theirs}", f".{theirs}.weight")):
                out.setdefault(short.rpartition(f".{theirs}")[0], {})[ours] = tensor
                break
        else:
            raise BadInput(f"{path}: tensor {key[:120]!r} is not one of LoRA, DoRA or (IA)^3 on a linear map")
    return out


def _lora(config: Mapping[str, Any], site: str, mine: Mapping[str, Tensor], path: Path) -> Change:
    named = {"A", "B", "m"} if config.get("use_dora") else {"A", "B"}
    if mine.keys() != named:
        raise BadInput(f"{path}: {site} has tensors {sorted(mine)}, not {sorted(named)}")
    if mine["A"].dim() != 2:
        raise BadInput(f"{path}: A of {site} must be of shape (rank, in), not {tuple(mine['A'].shape)}")
    rank = len(mine["A"])
    kind = DoRA if config.get("use_dora") else LoRA
    try:
        alpha = float(_of_pattern(config.get("alpha_pattern") or {}, site, config["lora_alpha"]))
        dropout = float(config.get("lora_dropout", 0.0))
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise BadInput(f"{path / CONFIG}: lora_alpha, alpha_pattern or lora_dropout is no number: {error!r}") from error
    return kind(rank, alpha, dropout, bool(config.get("use_rslora")))


def _ia3(site: str, mine: Mapping[str, Tensor], path: Path) -> Change:
    vector = mine.get("l")
    if vector is None or vector.dim() != 2 or 1 not in vector.shape:
        raise BadInput(f"{path}: {site} needs one vector ia3_l of shape (out, 1) or (1, in)")
    return IA3("in" if vector.shape[0] == 1 else "out")


def _of_pattern(patterns: Mapping[str, Any], site: str, otherwise: Any) -> Any:
    """peft's rule: the first pattern that the end of the name fits."""
    return next((v for p, v in patterns.items() if re.match(rf"(.*\.)?({p})$", site)), otherwise)
