"""LoRA training, step by step, with a state on disk from which an interrupted run goes on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch
from packing import EncodedRow, answer_loss, attend_packed, pack
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

BASE_NAME = "SmolLM2-135M-Instruct"


class Settings(msgspec.Struct, frozen=True):
    """What a run's steps depend on, besides its data."""

    steps: int
    rows_per_step: int = 16
    learning_rate: float = 6e-4
    warmup_steps: int = 20
    cooldown_steps: int = 30
    rank: int = 16
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step: a linear warm-up under a half cosine."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def rate_until(self, step: int, last_step: int) -> float:
        """Learning rate of a step in a run that ends after `last_step`: `rate`, cooled down linearly at the end."""
        return self.rate(step) * min(1.0, (last_step - step) / self.cooldown_steps)


class LoraTraining:
    """A causal LM with LoRA on all its linear layers, and its optimizer.

    Step i trains on rows [i * rows_per_step, (i + 1) * rows_per_step): the rows' order is the caller's, and there is
    no other randomness but the adapter's seeded start.
    """

    def __init__(
        self,
        model: Any,
        prefix: Sequence[int],
        rows: Sequence[EncodedRow],
        settings: Settings,
        last_step: int | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._prefix, self._rows, self.settings = prefix, rows, settings
        self._device = next(model.parameters()).device
        self._causal_lm = model  # peft puts its layers into this very model
        config = LoraConfig(
            r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self._peft = get_peft_model(model, config).train()
        attend_packed(model)
        # One thread a core, each with rows of its own, meets once a step; threads inside one operation meet at each.
        self._num_workers = 1 if self._device.type == "cuda" else len(os.sched_getaffinity(0))
        self._workers = ThreadPoolExecutor(self._num_workers, initializer=torch.set_num_threads, initargs=(1,))
        torch.set_num_threads(1)  # the optimizer's many small operations too
        self._trained = {name: p for name, p in self._peft.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(self._trained.values(), weight_decay=0.0, fused=True)
        self.step = 0
        self.last_step = last_step or settings.steps

    def run_step(self) -> float:
        """Train on the next step's rows and return their mean loss."""
        size = self.settings.rows_per_step
        rows = self._rows[self.step * size : (self.step + 1) * size]
        shares = _balanced(rows, self._num_workers)
        results = list(self._workers.map(self._gradients, shares))
        for parameter, *gradients in zip(self._trained.values(), *(grads for _, grads in results), strict=True):
            parameter.grad = torch.stack(gradients).sum(0) / len(rows)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate_until(self.step, self.last_step)
        torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        self._optimizer.step()
        self.step += 1
        return sum(loss for loss, _ in results) / len(rows)

    def mean_loss(self, rows: Sequence[EncodedRow]) -> float:
        """The mean loss of rows that are not trained on."""

        def loss(share: Sequence[EncodedRow]) -> float:
            with torch.no_grad():
                return self._loss(share).item()

        size = self.settings.rows_per_step
        steps = [rows[start : start + size] for start in range(0, len(rows), size)]
        shares = [share for step in steps for share in _balanced(step, self._num_workers)]
        return sum(self._workers.map(loss, shares)) / len(rows)

    def _gradients(self, rows: Sequence[EncodedRow]) -> tuple[float, tuple[Tensor, ...]]:
        loss = self._loss(rows)
        return loss.item(), torch.autograd.grad(loss, list(self._trained.values()))

    def _loss(self, rows: Sequence[EncodedRow]) -> Tensor:
        packed = pack(self._prefix, rows).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=_multiplies_bfloat16(self._device)):
            return answer_loss(self._causal_lm, packed)

    def save_state(self, path: Path) -> None:
        """Write what `restore` needs; the file is replaced as a whole."""
        state = {
            "settings": msgspec.to_builtins(self.settings),
            "step": self.step,
            "trained": {name: parameter.detach() for name, parameter in self._trained.items()},
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def begin_with(self, adapter: Path) -> None:
        """Start from an adapter that `save_adapter` wrote; the schedule and the optimizer start afresh."""
        set_peft_model_state_dict(self._peft, load_file(adapter / "adapter_model.safetensors"))

    def restore(self, path: Path) -> None:
        """Go on where `save_state` left off; ValueError where that run had other settings."""
        state = torch.load(path, map_location=self._device, weights_only=True)
        if state["settings"] != msgspec.to_builtins(self.settings):
            raise ValueError(f"expected a run with {self.settings}, got a state of {state['settings']}")
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(state["trained"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in fp16, with a configuration that names the base model and no path."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(self._peft).items()}
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = self._peft.peft_config["default"]
        config.base_model_name_or_path = BASE_NAME
        config.inference_mode = True
        config.save_pretrained(str(folder))


def _multiplies_bfloat16(device: torch.device) -> bool:
    # A processor without such instructions emulates them, slower than fp32.
    return device.type == "cuda" or any(torch.cpu.get_capabilities().get(f"{unit}_bf16") for unit in ("avx512", "amx"))


def _balanced(rows: Sequence[EncodedRow], count: int) -> list[list[EncodedRow]]:
    shares: list[list[EncodedRow]] = [[] for _ in range(min(count, len(rows)))]
    for row in sorted(rows, key=lambda row: -len(row.inputs)):
        min(shares, key=lambda share: sum(len(other.inputs) for other in share)).append(row)
    return shares
