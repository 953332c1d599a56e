"""A training step of LoRA beside peft's: the same network, weights, batch, rank, sites and optimiser.

    pip install peft transformers
    python benchmarks/lora_step.py [--rounds 15] [--steps 3] [--threads 1] [--out results/lora_step.json]

A BERT of MiniLM's shape with random weights reads 32 rows of 64 tokens; LoRA of rank 8 stands at all six linear maps
of each block; a step is forward, backward, AdamW. Both sides take turns in one process, ``--steps`` steps a round; a
ratio is formed within a round, the table gives its median and the interval of that by bootstrap. Processor seconds are
those to trust on a busy machine. Memory is the peak of a process of its own for each side, less what it had before the
first step. Losses must agree, step by step: both do the same work.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from handful.core.train import AdamW
from handful.files import whole_file
from handful.tune import Delta, Placed, Where
from handful.tune.lora import LoRA
from handful.tune.sites import LINEAR

HERE = Path(__file__).resolve().parent
ROWS, TOKENS, RANK, ALPHA, LR = 32, 64, 8, 16.0, 1e-3
SIDES = ("handful", "peft")
SITES = ["query", "key", "value", "dense"]
Step = Callable[[], float]


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=SIDES, help="only the peak memory of one side, in bytes")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lora_step.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        print(peak(options.memory))
        return 0
    sides = begun()
    times: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in SIDES} for clock in ("wall", "processor")}
    apart = 0.0
    for turn in range(options.rounds + 1):
        losses = {}
        for name in SIDES if turn % 2 else SIDES[::-1]:
            wall, processor = time.perf_counter(), time.process_time()
            losses[name] = [sides[name]() for _ in range(options.steps)]
            if turn:  # the first warms up
                times["wall"][name].append(time.perf_counter() - wall)
                times["processor"][name].append(time.process_time() - processor)
        apart = max(apart, float(np.abs(np.subtract(losses["handful"], losses["peft"])).max()))
    memory = {name: int(subprocess.check_output([sys.executable, __file__, "--memory", name])) for name in SIDES}
    found = {
        "torch": version("torch"), "peft": version("peft"), "threads": options.threads, "rounds": options.rounds,
        "step_seconds": {name: float(np.median(times["processor"][name])) / options.steps for name in SIDES},
        "time": {clock: ratio(of["handful"], of["peft"]) for clock, of in times.items()},
        "memory_bytes": memory, "memory": memory["handful"] / memory["peft"], "losses_apart": apart,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    with whole_file(options.out) as file:
        file.write(json.dumps(found, indent=1).encode())
    return 0 if apart < 1e-3 else 1


def begun() -> dict[str, Step]:
    """A step of each side; both begin alike."""
    base = network()
    delta = Delta.begin(base, [Placed(LoRA(RANK, ALPHA), Where(LINEAR))], torch.Generator().manual_seed(0))
    theirs = with_peft(copy.deepcopy(base))
    copy_start(delta, theirs)
    return {"handful": ours(base, delta), "peft": step_of(theirs)}


def network() -> nn.Module:
    """A BERT of MiniLM's shape."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    return BertModel(shape, add_pooling_layer=False).eval()


def with_peft(model: nn.Module) -> nn.Module:
    """The same with peft's LoRA at the linear maps of the blocks."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=SITES)).eval()


def copy_start(delta: Delta, theirs: nn.Module) -> None:
    """Give peft's factors the numbers that ours begin with. Raises `ValueError` where sites differ."""
    named = {name: module for name, module in theirs.named_modules() if hasattr(module, "lora_A")}
    if len(named) != len(delta.holders):
        raise ValueError(f"{len(delta.holders)} sites against {len(named)} of peft's")
    with torch.no_grad():
        for holder in delta.each():
            module = named[f"base_model.model.{holder.site}"]
            module.lora_A["default"].weight.copy_(holder.tensors["A"])
            module.lora_B["default"].weight.copy_(holder.tensors["B"])


def ours(model: nn.Module, delta: Delta) -> Step:
    """A step with the changes as branches, by Handful's optimiser."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parameters, update = list(delta.parameters()), AdamW()

    def step() -> float:
        with delta.attached(model):
            loss = loss_of(model)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            update([p.data for p in parameters], gradients, LR)
        return float(loss.detach())

    return step


def step_of(model: nn.Module) -> Step:
    """A step of peft's model by torch's optimiser."""
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=LR, weight_decay=0.01)

    def step() -> float:
        optimiser.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def loss_of(model: nn.Module) -> Tensor:
    """The cross-entropy of a fixed target read off the mean of the tokens."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, 30000, (ROWS, TOKENS), generator=draw)
    wanted = torch.randint(0, 8, (ROWS,), generator=draw)
    hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return nn.functional.cross_entropy(hidden.mean(1)[:, :8], wanted)


def peak(name: str) -> int:
    """By how much the memory of this process grows over three steps of one side, in bytes."""
    base = network()
    if name == "handful":
        delta = Delta.begin(base, [Placed(LoRA(RANK, ALPHA), Where(LINEAR))], torch.Generator().manual_seed(0))
        step = ours(base, delta)
    else:
        step = step_of(with_peft(base))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def ratio(mine: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of the ratios of rounds, with its interval by bootstrap."""
    each = np.divide(mine, theirs)
    draws = np.random.default_rng(0).choice(each, (2000, len(each)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"value": float(np.median(each)), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    sys.exit(main())
