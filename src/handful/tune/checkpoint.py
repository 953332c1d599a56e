"""Where a run stands, in one file: numbers that learn, what the optimisers remember, which step comes next.

The file is safetensors, written whole or not at all; the random numbers of a step follow from its number and need no
place in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handful.core.train import Optimiser
from handful.errors import BadInput
from handful.files import whole_file


@dataclass
class Checkpoint:
    """Keeps where a run stands; without a path it keeps nothing.

    Args:
        path: the file.
        every: seconds between two writings.
        run: what the run is; a file of another is refused.
    """

    path: Path | None
    every: float
    run: str
    _last: float = field(default_factory=time.monotonic)

    def resume(
        self, stage: int, modules: Mapping[str, nn.Module], updates: Sequence[Optimiser], losses: list[float]
    ) -> tuple[int, list[float]]:
        """The step of this stage to go on with, and the losses before it; modules and optimisers are filled in.

        A stage that is over in the file is gone over without a step.

        Raises:
            BadInput: the file is no checkpoint, or another run's.
        """
        if self.path is None or not self.path.exists():
            return 0, losses
        where, tensors = self._read()
        if where["stage"] < stage:
            return 0, losses
        for name, module in modules.items():
            state = {key: tensors[f"{name}.{key}"] for key in module.state_dict()}
            module.load_state_dict(state)
        seen = list(where["losses"])
        if where["stage"] > stage:
            return sys.maxsize, seen
        for number, update in enumerate(updates):
            many = sum(key.startswith(f"update.{number}.") for key in tensors)
            update.recall([tensors[f"update.{number}.{i}"] for i in range(many)])
        return int(where["step"]), seen

    def keep(
        self, stage: int, step: int, modules: Mapping[str, nn.Module], updates: Sequence[Optimiser], losses: list[float]
    ) -> None:
        """Write where the run stands, if it is time, or a stage is over (``step`` 0)."""
        if self.path is None or (step and time.monotonic() - self._last < self.every):
            return
        from safetensors.torch import save

        states: list[tuple[str, Iterable[tuple[Any, Tensor]]]]
        states = [(name, module.state_dict().items()) for name, module in modules.items()]
        states += [(f"update.{number}", enumerate(update.memory())) for number, update in enumerate(updates)]
        tensors: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, state in states:
            for key, tensor in state:
                there = tensor.data_ptr() in seen  # several places share one: a file has no place for that
                tensors[f"{name}.{key}"] = tensor.clone() if there else tensor.contiguous()
                seen.add(tensor.data_ptr())
        where = json.dumps({"run": self.run, "stage": stage, "step": step, "losses": losses})
        with whole_file(self.path) as file:
            file.write(save(tensors or {"none": torch.zeros(1)}, {"handful-tune": where}))
        self._last = time.monotonic()

    def remove(self) -> None:
        """The run is over."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        from safetensors import SafetensorError, safe_open

        assert self.path is not None
        try:
            with safe_open(self.path, "pt") as file:
                where = json.loads((file.metadata() or {}).get("handful-tune", "null"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise BadInput(f"{self.path} is not a whole checkpoint: delete it to begin anew ({error})") from error
        if not isinstance(where, dict) or where.get("run") != self.run:
            raise BadInput(f"{self.path} is the checkpoint of another run; delete it, or give another file")
        return where, tensors
