"""Trainings as Ray tasks: what follows from finished ones is trained in the same pass."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from raysynth.errors import DamagedError
from raysynth.heads.spec import TRAINED
from raysynth.progress import Progress
from raysynth.training.plan import Phase, Plan
from raysynth.training.units import Units, load_unit, read_record, run_units, train_unit, unit_name
from tests.training.tiny import SIDE, tiny_blueprint, tiny_config, tiny_data, tiny_groups


def tiny_units(folder: Path) -> Units:
    resources = tiny_config().resources
    return Units(str(folder), tiny_blueprint(), resources, tiny_groups(), SIDE)


class Said(Progress):
    """Remembers how far it was told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[float, float]] = []

    def update(self, what: str, done: float = 0, total: float = 0) -> None:
        self.counts.append((done, total))


def test_followers_are_trained_and_none_twice(ray_local, tmp_path):
    first = Plan((Phase("real", 4, 3e-3, 0.01),), (TRAINED,), evaluations=1)
    second = replace(first, seed=1)
    data = ray_local.put(tiny_data())

    def then(records):
        return [first, second] if first in records else []

    for kept in (0, 2):
        said = Said()
        records = run_units(tiny_units(tmp_path), [first], data, said, "trainings", then)
        assert set(records) == {first, second}
        assert said.counts[0][0] == kept, "a run that goes on begins where it was"
        assert said.counts[-1] == (2, 2)
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("harm", ["cut", "fewer", "not finite", "gone"])
def test_weights_that_cannot_be_used_are_damage_at_their_path(tmp_path, harm):
    plan = Plan((Phase("real", 4, 3e-3, 0.01),), (TRAINED,), evaluations=1)
    units = tiny_units(tmp_path)
    record = train_unit(plan, tiny_data(), tiny_blueprint(), str(tmp_path))
    load_unit(units, record, TRAINED.name)
    file = tmp_path / f"{unit_name(plan)}.safetensors"
    tensors = load_file(file)
    name = next(name for name, value in tensors.items() if name[:2] == "4/" and value.ndim)
    if harm == "fewer":
        del tensors[name]
    if harm == "not finite":
        tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, file)
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    if harm == "gone":
        file.unlink()
    said = {"fewer": f"without {name}", "not finite": "is not finite"}.get(harm, "cannot be read")
    with pytest.raises(DamagedError, match=said) as refused:
        load_unit(units, record, TRAINED.name)
    assert refused.value.path == str(file)


def test_a_unit_cut_in_half_is_named_and_trained_again_bit_for_bit(ray_local, tmp_path):
    plan = Plan((Phase("real", 4, 3e-3, 0.01),), (TRAINED,), evaluations=1)
    data = ray_local.put(tiny_data())

    def trained() -> str:
        console = Console(file=io.StringIO(), width=400)
        run_units(tiny_units(tmp_path), [plan], data, Progress(console), "trainings")
        return console.file.getvalue()

    assert "again" not in trained()
    record, weights = (tmp_path / f"{unit_name(plan)}.{end}" for end in ("json", "safetensors"))
    whole = weights.read_bytes()
    for file, content in (
        (record, b""),
        (record, record.read_bytes()[:50]),
        (record, b"[1, 2]"),
        (weights, whole[: len(whole) // 2]),
        (weights, b""),
        (weights, b"version https://git-lfs.github.com/spec/v1"),
    ):
        file.write_bytes(content)
        assert f"{file} is" in (said := trained()) and "again" in said
        assert weights.read_bytes() == whole and read_record(str(tmp_path), plan)
    weights.unlink()
    assert f"{weights} is missing" in trained()
    assert trained() == ""
