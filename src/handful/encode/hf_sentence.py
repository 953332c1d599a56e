"""What a sentence-transformers folder asks for, as a few plain steps after the transformer.

``modules.json`` lists the steps. Only kinds known here are taken; nothing it names is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from handful.errors import BadInput, nearest

if TYPE_CHECKING:
    from handful.encode.hf import Source

Pool = Callable[[Tensor, Tensor], Tensor]
"""Vectors [n, d] of token vectors [n, t, d] and their mask [n, t, 1], 1 for a token and 0 for padding."""
Step = Callable[[Tensor], Tensor]
"""Vectors to vectors."""


def mean(h: Tensor, mask: Tensor) -> Tensor:
    """Mean of the token vectors."""
    return (h * mask).sum(1) / mask.sum(1)


def cls(h: Tensor, mask: Tensor) -> Tensor:
    """Vector of the first token."""
    return h[:, 0]


def peak(h: Tensor, mask: Tensor) -> Tensor:
    """Largest value of each channel among the tokens."""
    return h.masked_fill(mask == 0, -torch.inf).amax(1)


POOLS: Mapping[str, Pool] = {"mean": mean, "cls": cls, "max": peak}
_OLD_POOLS = {"pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean"}
_ACTIVATIONS: Mapping[str, Step] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": functional.relu,
    "GELU": functional.gelu,
}


@dataclass(frozen=True)
class Recipe:
    """From a text to its vector. The defaults are for a plain text encoder: mean of the token vectors.

    Args:
        folder: of the transformer.
        pools: what becomes of the token vectors, one after the other in the result.
        steps: what is done to the vector then.
        max_tokens: that are read, when fewer than the transformer could.
        lower: whether texts are put in lower case.
        prompt: words before each text.
        unit: whether the vectors are unit.
    """

    folder: Path
    pools: tuple[Pool, ...] = (mean,)
    steps: tuple[Step, ...] = ()
    max_tokens: int | None = None
    lower: bool = False
    prompt: str = ""
    unit: bool = False

    def vectors(self, h: Tensor, mask: Tensor) -> Tensor:
        """Vectors [n, d] of token vectors [n, t, d] with their mask [n, t]."""
        weights = mask[..., None].to(h.dtype)
        x = torch.cat([pool(h, weights) for pool in self.pools], dim=1)
        for step in self.steps:
            x = step(x)
        return x


def sentence_recipe(source: Source) -> Recipe:
    """What ``modules.json`` says, or the mean of the token vectors where there is none.

    Raises `BadInput` for a module or a setting that is not known here.
    """
    if not (source.folder / "modules.json").is_file():
        return Recipe(source.folder)
    listed = source.read_json("modules.json")
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise BadInput(f"encoder {source.name!r}: modules.json is no list of modules")
    modules = [(_kind(source, module), str(module.get("path", ""))) for module in listed]
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise BadInput(f"encoder {source.name!r}: modules.json has {kinds}; Transformer and Pooling must come first")
    folder = _inside(source, modules[0][1])
    settings = _settings(source, modules[0][1], "sentence_bert_config.json", optional=True)
    pooling = _settings(source, modules[1][1], "config.json")
    prompt = _prompt(source)
    if prompt and not pooling.get("include_prompt", True):
        raise BadInput(f"encoder {source.name!r} leaves its prompt out of the pooling, which is not supported")
    return Recipe(
        folder=folder,
        pools=_pools(source, pooling),
        steps=tuple(_step(source, kind, path) for kind, path in modules[2:]),
        max_tokens=settings.get("max_seq_length"),
        lower=bool(settings.get("do_lower_case", False)),
        prompt=prompt,
        unit=kinds[-1] == "Normalize",
    )


def _kind(source: Source, module: Mapping[str, Any]) -> str:
    known = ("Dense", "Normalize", "Pooling", "Transformer")
    package, _, kind = str(module.get("type", "")).rpartition(".")
    if package.partition(".")[0] != "sentence_transformers" or kind not in known:
        what = f"modules.json has {str(module.get('type'))[:100]!r}, which is not known"
        raise BadInput(f"encoder {source.name!r}: {what}{nearest(kind, known)}")
    return kind


def _inside(source: Source, path: str) -> Path:
    folder = (source.folder / path).resolve()
    if not folder.is_relative_to(source.folder.resolve()):
        raise BadInput(f"encoder {source.name!r}: modules.json points outside the model's folder, to {path!r}")
    return folder


def _settings(source: Source, path: str, file: str, optional: bool = False) -> dict[str, Any]:
    at = _inside(source, path) / file
    if optional and not at.is_file():
        return {}
    return dict(source.read_json(str(at.relative_to(source.folder.resolve()))))


def _prompt(source: Source) -> str:
    settings = _settings(source, "", "config_sentence_transformers.json", optional=True)
    return str((settings.get("prompts") or {}).get(settings.get("default_prompt_name"), ""))


def _pools(source: Source, settings: Mapping[str, Any]) -> tuple[Pool, ...]:
    named = settings.get("pooling_mode")
    if named is None:  # as written before version 5.5
        modes = [_OLD_POOLS.get(key, key) for key, on in settings.items() if key.startswith("pooling_mode_") and on]
        # Their results stand side by side in this order, whatever the order of the file.
        modes = sorted(modes or ["mean"], key=lambda mode: ("cls", "max", "mean").index(mode) if mode in POOLS else 3)
    else:
        modes = [named] if isinstance(named, str) else list(named)
    for mode in modes:
        if mode not in POOLS:
            raise BadInput(f"encoder {source.name!r}: pooling {mode!r} is not known{nearest(str(mode), POOLS)}")
    return tuple(POOLS[mode] for mode in modes)


def _step(source: Source, kind: str, path: str) -> Step:
    if kind == "Normalize":
        return lambda x: functional.normalize(x, dim=1)
    if kind != "Dense":
        raise BadInput(f"encoder {source.name!r}: modules.json has a second {kind}, which is not supported")
    from safetensors.torch import load_file

    settings = _settings(source, path, "config.json")
    name = str(settings.get("activation_function", "Identity")).rpartition(".")[2]
    if name not in _ACTIVATIONS or settings.get("use_residual"):
        what = f"activation {name!r}" if name not in _ACTIVATIONS else "use_residual"
        raise BadInput(f"encoder {source.name!r}: Dense with {what} is not supported{nearest(name, _ACTIVATIONS)}")
    file = _inside(source, path) / "model.safetensors"
    if not file.is_file():
        raise BadInput(f"encoder {source.name!r}: {path}/model.safetensors is missing; only safetensors are read")
    tensors = load_file(file)
    weight, bias, activation = tensors["linear.weight"], tensors.get("linear.bias"), _ACTIVATIONS[name]
    return lambda x: activation(functional.linear(x, weight, bias))
