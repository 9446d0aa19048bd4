"""Optimizers: how a fine-tuning steps, each adapter by a state of its own.

An optimizer is a file of `raysynth/finetune/optimizers` (`settings.OPTIMIZERS`), mostly a
library's. An adapter is one row of weights (`adapters.rows`); a library that shares numbers between
what it steps, as Prodigy its distance, is built once for each. So an adapter comes out the same in
any pack, and its state goes into its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from raysynth.errors import ConfigError
from raysynth.finetune.settings import OPTIMIZERS, FinetuneConfig
from raysynth.generators.recipe import Training
from raysynth.knobs import Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BETAS = (0.9, 0.99)
"""Of moving averages of gradients and of their squares."""
VALUES_AND_GRADIENTS = 8
"""Bytes per trained weight before any state."""
STATE, NUMBER, GROUP = "state.", "number.", "group."
"""Before what a checkpoint keeps: tensors and numbers of the row, numbers of its group."""


class Optimizer(Protocol):
    """One optimizer."""

    title: str
    source: str
    Knobs: type[Section]
    packages: tuple[str, ...]
    """Modules that it needs, of the extra of its name; none: torch's own."""
    extra: str
    """`pip install 'raysynth[...]'`."""
    rate: float | None
    """Peak learning rate where none is asked for; None: the generator's own."""
    falls: bool
    """Whether the learning rate falls to zero after its warm-up."""
    averages: bool
    """Whether what is kept are averages of its own (`kept`): `finetune.ema` would be another."""
    bytes: float
    """Of its state per trained weight."""
    states: tuple[str, ...]
    """Names of its state's tensors that have a number per weight, for checkpoints."""
    carried: tuple[str, ...]
    """Numbers of its parameter groups that change while it steps."""

    def build(
        self, rows: Sequence[nn.Parameter], settings: FinetuneConfig, knobs: Any
    ) -> Sequence[torch.optim.Optimizer]:
        """One for all rows with a group for each, or one for each row."""

    def kept(self, row: Tensor, state: Mapping[str, Any]) -> Tensor:
        """[n] what a row in training stands for, where `averages`."""


def optimizer_of(settings: FinetuneConfig) -> Optimizer:
    """The part that the configuration names."""
    found: Optimizer = OPTIMIZERS[settings.optimizer.name]
    return found


def rate_of(settings: FinetuneConfig, usual: float) -> float:
    """Peak learning rate of adapters without one of their own; `usual`: the generator's."""
    own = optimizer_of(settings).rate
    return usual if own is None or settings.learning_rate is not None else own


def kept_bytes(settings: FinetuneConfig) -> float:
    """Per trained weight: value, gradient and the optimizer's state."""
    return VALUES_AND_GRADIENTS + optimizer_of(settings).bytes


def check_optimizer(settings: FinetuneConfig, training: Training | None) -> None:
    """Refuse an optimizer that is not installed, or averages beside a moving average."""
    if training is None:
        return
    part, said = optimizer_of(settings), f"finetune.optimizer={settings.optimizer.name}"
    if missing := [name for name in part.packages if find_spec(name) is None]:
        raise ConfigError(
            f"{said}: needs {', '.join(missing)}, which is not installed. Fix: "
            f"pip install 'raysynth[{part.extra}]', on every node"
        )
    if part.averages and training.budget.ema:
        raise ConfigError(
            f"{said}: keeps an average of its own; expected no second one, got finetune.ema="
            f"{training.budget.ema:g}. Fix: finetune.ema=0"
        )


@dataclass
class Steps:
    """The optimizers of all slots; see `Optimizer.build`."""

    part: Optimizer
    rows: Sequence[nn.Parameter]
    optimizers: Sequence[torch.optim.Optimizer]

    @classmethod
    def of(cls, rows: Sequence[nn.Parameter], settings: FinetuneConfig) -> Steps:
        """Those of the configuration for these rows."""
        part = optimizer_of(settings)
        return cls(part, rows, part.build(rows, settings, settings.optimizer.knobs(OPTIMIZERS)))

    def _own(self, slot: int) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
        alone = len(self.optimizers) == len(self.rows)
        optimizer = self.optimizers[slot if alone else 0]
        return optimizer, optimizer.param_groups[0 if alone else slot]

    def set_rate(self, slot: int, rate: float) -> None:
        """The learning rate of a slot's next step."""
        self._own(slot)[1]["lr"] = rate

    def step(self) -> None:
        """A step of every row that has a gradient; no other's state changes."""
        if len(self.optimizers) < len(self.rows):
            self.optimizers[0].step()
            return
        for row, optimizer in zip(self.rows, self.optimizers, strict=True):
            if row.grad is not None:
                optimizer.step()

    def clear(self, slot: int) -> None:
        """Forget all about a slot's row: another adapter begins there."""
        optimizer, group = self._own(slot)
        optimizer.state.pop(self.rows[slot], None)
        group.update({name: optimizer.defaults[name] for name in self.part.carried})

    def state(self, slot: int) -> dict[str, Tensor]:
        """All that a slot's training goes on by; empty before its first step."""
        import torch

        optimizer, group = self._own(slot)
        found: dict[str, Tensor] = {}
        for name, value in optimizer.state.get(self.rows[slot], {}).items():
            if isinstance(value, torch.Tensor):
                found[STATE + name] = value
            else:
                found[NUMBER + name] = torch.tensor(value)
        if found:
            doubles = {GROUP + name: float(group[name]) for name in self.part.carried}
            found |= {name: torch.tensor(v, dtype=torch.float64) for name, v in doubles.items()}
        return found

    def restore(self, slot: int, kept: Mapping[str, Tensor]) -> None:
        """Go on by what `state` gave."""
        optimizer, group = self._own(slot)
        row, state = self.rows[slot], dict[str, Any]()
        for key, tensor in kept.items():
            kind, _, name = key.partition(".")
            if f"{kind}." == STATE:
                state[name] = tensor.to(row.device)
            elif f"{kind}." == NUMBER:
                state[name] = tensor.item()
            else:
                group[name] = type(optimizer.defaults[name])(tensor.item())
        optimizer.state[row] = state

    def kept(self, slot: int) -> Tensor:
        """[n] what a slot's row stands for."""
        optimizer, _ = self._own(slot)
        row = self.rows[slot].detach()
        state = optimizer.state.get(self.rows[slot], {})
        return self.part.kept(row, state) if self.part.averages and state else row
