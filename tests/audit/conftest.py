"""The models are those of fine-tuning's miniature room, with one of three groups on top."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raysynth.audit.methods.guda import GudaKnobs
from raysynth.audit.unlearning import redirected, unlearners
from raysynth.finetune.packs import Pack
from raysynth.finetune.training import train_pack
from tests.finetune.conftest import GROUPS, cut_off, room

__all__ = ["cut_off", "room"]

KNOBS = GudaKnobs(steps=6, learning_rate=2e-3, timesteps=3)
LORA = {"engine": "lora", "per": "all", "learning_rate": 1e-2, "steps": 6, "batch_size": 4}


def quiet(done, failed, fit="", **more):
    pass


@pytest.fixture(scope="session")
def full(room, tmp_path_factory) -> Pack:
    """One trained LoRA of pullovers on grass and of coats; none of pullovers on gravel."""
    work = tmp_path_factory.mktemp("full")
    pack = room.pack(room.config("shared", **LORA), work)
    assert train_pack(pack, quiet) == {}
    return pack


def lesson(full: Pack, work: Path, knobs: GudaKnobs = KNOBS, only: tuple[int, ...] = ()) -> Pack:
    """The pack of the models without a group, with its loss."""
    jobs = unlearners(full.jobs, knobs.steps, knobs.learning_rate)
    jobs = [job for job in jobs if not only or job.without in only]
    settings = full.settings.model_copy(update={"prompt_dropout": 0.0})
    pack = replace(full, jobs=jobs, settings=settings, work=str(work), parents=full.work)
    return redirected(pack, lambda: np.ones((GROUPS.count, GROUPS.count)), knobs)
