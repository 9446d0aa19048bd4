"""Drawing with experts: each noise level is asked of its own, whatever the batch."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from raysynth.synthesis.drawing import ImageGenerator
from raysynth.synthesis.task import Drawing
from tests.synthesis.conftest import CLUSTERS
from tests.synthesis.test_sources import PROMPT

NAMES = tuple(f"{group}-{cluster}" for group, cluster in CLUSTERS)


@pytest.fixture
def folder(lora_folder, tmp_path) -> str:
    """Of every adapter two experts: the lower is the adapter, the higher another one's."""
    shutil.copytree(lora_folder, tmp_path, dirs_exist_ok=True)
    for number, name in enumerate(NAMES):
        shutil.copytree(tmp_path / name, tmp_path / f"{name}.t0")
        shutil.copytree(tmp_path / NAMES[number - 1], tmp_path / f"{name}.t1")
    return str(tmp_path)


def images(
    make_config, folder: str, experts: int, names: list[str], seeds: list[int]
) -> np.ndarray:
    config = make_config(finetune={"experts": experts}, synthesis={"steps": 4})
    generate = ImageGenerator(Drawing.of(config), folder, list(dict.fromkeys(names)))
    count = len(names)
    return generate([PROMPT] * count, [""] * count, names, seeds).astype(int)


def test_levels_are_asked_of_their_own_expert(make_config, folder):
    """Levels .999, .75, .5, .25: the bins part at .5."""
    config = make_config(finetune={"experts": 2}, synthesis={"steps": 4, "guidance_scale": 1.0})
    generate = ImageGenerator(Drawing.of(config), folder, [NAMES[0]])
    asked: list[str] = []
    real = generate.bank.use

    def use(adapters, copies):
        asked.append(adapters[0])
        return real(adapters, copies)

    generate.bank.use = use
    generate([PROMPT] * 8, [""] * 8, [NAMES[0]] * 8, range(8))
    assert asked == [f"{NAMES[0]}.t1", f"{NAMES[0]}.t0"]


def test_mixed_rows_are_drawn_as_adapter_by_adapter(make_config, folder):
    names = [NAMES[0]] * 2 + [NAMES[1]] * 2
    together = images(make_config, folder, 2, names, [0, 1, 2, 3])
    for rows in ([0, 1], [2, 3]):
        alone = images(make_config, folder, 2, [names[row] for row in rows], rows)
        assert np.abs(together[rows] - alone).max() <= 1
    plain = images(make_config, folder, 1, names, [0, 1, 2, 3])
    assert (np.abs(together - plain).max((1, 2, 3)) > 8).all(), "the higher expert is another's"
