"""One run of `raysynth train`, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raysynth.adapter_runs.course import TRAIN
from raysynth.adapter_runs.settings import TrainConfig
from raysynth.adapters.record import Adapter, read_adapters
from raysynth.pipeline import run_course
from raysynth.progress import USUAL, Progress
from raysynth.terminal import masked


@dataclass(frozen=True)
class Adapters:
    """The adapters of a run."""

    root: str
    """The run's folder or URI."""
    folder: str
    """Where they lie, a folder each."""
    records: Mapping[str, Adapter]
    """By name."""

    @property
    def folders(self) -> dict[str, str]:
        """Name -> folder or URI that diffusers' `load_lora_weights` reads."""
        return {name: f"{self.folder}/{name}" for name in self.records}

    @property
    def said(self) -> str:
        """A line for the terminal."""
        many = len(self.records)
        return f"{many:,} adapter{'s' * (many != 1)}: {masked(self.folder)}"


def run_train(
    config: TrainConfig, progress: Progress | None = None, loudness: int = USUAL
) -> Adapters:
    """Train what is not there yet; parameters and errors as `pipeline.run_pipeline`."""
    finished = run_course(TRAIN, config, progress=progress or Progress(loudness=loudness))
    folder = finished.folder("finetune")
    return Adapters(config.root, folder, {each.name: each for each in read_adapters(folder)})
