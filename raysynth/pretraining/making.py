"""What every stage has: settings, images, captions, tokenizer, crew; and the stages' plans."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from raysynth.models.settings import BaseConfigSection
from raysynth.pretraining.crew import Crew
from raysynth.pretraining.loop import Plan, Told
from raysynth.pretraining.material import Material
from raysynth.pretraining.settings import PretrainingConfig


@dataclass(frozen=True)
class Making:
    """What every stage has."""

    settings: PretrainingConfig
    base: BaseConfigSection
    material: Material
    tokenizer: CLIPTokenizer
    crew: Crew
    folder: str
    """Folder or URI of all that is made."""
    seed: int
    keys: dict[str, str]
    """Stage -> digest of all that decides what comes out of it."""
    told: Told
    weights: Tensor
    """[T] how often each trained image is drawn."""

    def plan(self, name: str, steps: int, crew: Crew | None = None) -> Plan:
        """The plan of a stage; `crew`: who takes part, if not all."""
        file = f"{self.folder}/stages/{name}-{self.keys[name]}.pt"
        given = (crew or self.crew, self.told, self.settings.preview_steps)
        return Plan(name, steps, file, self.seed, *given)

    def draw(self, count: int, dice: torch.Generator) -> Tensor:
        """[count] rows of training images, by weight."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=dice)
        return self.material.trained[chosen]
