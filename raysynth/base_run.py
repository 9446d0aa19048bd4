"""One run of `raysynth pretrain`, and what it leaves: watched from outside while it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import yaml
from pydantic import Field

from raysynth.config.config import Config
from raysynth.jobs.heartbeat import Heartbeat
from raysynth.log import Log, of_libraries
from raysynth.pretraining.order import Order, order_of
from raysynth.progress import USUAL, Progress
from raysynth.stages.run import CONFIG
from raysynth.storage.files import make_folder, write_atomic
from raysynth.terminal import masked


class PretrainConfig(Config):
    """The configuration of a run of the method, read for the base that is made for it."""

    suffix: ClassVar[str] = "-base"
    command: Literal["pretrain"] = Field("pretrain", description="What wrote this configuration.")

    @property
    def order(self) -> Order:
        """What is asked of the workers; errors as `order_of`."""
        return order_of(self, self.root)


@dataclass(frozen=True)
class MadeBase:
    """A base that is made."""

    root: str
    """The run's folder or URI."""
    folder: str
    """The base, as `base.name` names it."""
    bars: tuple[str, ...]
    """What it reaches, a line each."""

    @property
    def said(self) -> str:
        """Lines for the terminal."""
        place = masked(self.folder)
        use = f"base.name={place} base.clip={place}/clip"
        return "\n".join((*self.bars, f"Use it: {use}"))


def run_pretrain(
    config: PretrainConfig, progress: Progress | None = None, loudness: int = USUAL
) -> MadeBase:
    """Make a base, or go on with it; errors as `pretraining.driver.run_pretraining`."""
    from raysynth.pretraining.driver import run_pretraining

    order, display = config.order, progress or Progress(loudness=loudness)
    bars = run_pretraining(order, display, lambda: _watched(config, display))
    return MadeBase(config.root, order.exported, tuple(bars))


@contextmanager
def _watched(config: PretrainConfig, display: Progress) -> Iterator[None]:
    """The folder's configuration, log and sign of life, as other runs have them."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    make_folder(config.root)
    write_atomic(f"{config.root}/{CONFIG}", text.encode())
    with Log(config.root, config.name) as log, of_libraries(log), Heartbeat(config.root, display):
        display.log = log
        yield
