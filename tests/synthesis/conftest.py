"""Random base and CLIP, adapters, centroids and embeddings as the rooms before leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysynth.adapters.grouped_lora import inject
from raysynth.adapters.record import Adapter, write_adapters
from raysynth.clustering.embed import vectors_column
from raysynth.config.config import Config
from raysynth.generators.lending import settled
from raysynth.generators.recipe import recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import spoken
from raysynth.models.base import load_base
from raysynth.models.family import layers_of
from raysynth.storage.tables import write_table
from raysynth.synthesis.plan import Spoken, plan_specs, whole
from raysynth.synthesis.specs import Asked
from tests.synthesis.random_models import write_base, write_clip

GROUPS = Groups(
    ("pullover", "coat"), ("grass", "gravel"), ("pullover", "coat"), ("grass", "gravel")
)
CLUSTERS = ((0, 0), (0, 1), (3, 0))
"""Group-clusters that have an adapter; groups 1 and 2 have too few images."""
COUNTS = [300, 4, 4, 300]


@pytest.fixture(scope="session")
def groups() -> Groups:
    return GROUPS


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def make_config(base_folder: Path, clip_folder: Path):
    """Config of the random models: `make_config(synthesis={"actors": 1}, ...)`."""

    def make(**sections: Any) -> Config:
        values: dict[str, Any] = {
            "base": {
                "name": str(base_folder),
                "clip": str(clip_folder),
                "dtype": "float32",
                "device": "cpu",
            },
            "finetune": {"rank": 2, "alpha": 2.0},
            "generator": "clustered_dreambooth",
            "synthesis": {
                "images_per_group": 12,
                "steps": 2,
                "batch_size": 8,
                "actors": 1,
                "rows_per_shard": 8,
                "gaussian_above": 1.0,
                "guidance": ["classifier_free"],
            },
        }
        for section, keys in sections.items():
            values[section] = (
                {**values.get(section, {}), **keys} if isinstance(keys, dict) else keys
            )
        return Config.model_validate(values)

    return make


@pytest.fixture(scope="session")
def lora_folder(make_config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three LoRA adapters of strong, different effect."""
    folder = str(tmp_path_factory.mktemp("adapters"))
    config = make_config()
    base, settings = load_base(config.base, ("model",)), config.finetune
    targets = layers_of(base.family, settings.targets)
    lora = inject(base.model, targets, settings.rank, settings.alpha, 3)
    torch.manual_seed(5)
    for matrix in lora.parameters():
        matrix.data = torch.randn_like(matrix) * 0.2
    for number, (group, cluster) in enumerate(CLUSTERS):
        lora.save(number, f"{folder}/{group}-{cluster}")
    write_adapters(records(config), folder)
    return folder


@pytest.fixture(scope="session")
def full_folder(make_config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three full fine-tunes, each another perturbation of the base UNet."""
    folder = str(tmp_path_factory.mktemp("full"))
    config = make_config(finetune={"engine": "full"})
    for number, (group, cluster) in enumerate(CLUSTERS):
        unet = load_base(config.base, ("model",)).model
        torch.manual_seed(number)
        for parameter in unet.parameters():
            parameter.data += 0.03 * torch.randn_like(parameter)
        unet.save_pretrained(f"{folder}/{group}-{cluster}/unet")
    write_adapters(records(config), folder)
    return folder


@pytest.fixture(scope="session")
def shared_folder(make_config, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One full fine-tune for all groups: the base as it is."""
    folder = str(tmp_path_factory.mktemp("shared"))
    load_base(make_config().base, ("model",)).model.save_pretrained(f"{folder}/shared/unet")
    write_adapters([shared_record()], folder)
    return folder


@pytest.fixture(scope="session")
def clusters_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Centroids and ten training images of four groups in the random CLIP's 16 dimensions."""
    folder = str(tmp_path_factory.mktemp("clusters"))
    numbers = pa.array(range(4), pa.int32())
    table = pa.table({"group": numbers, "embedding": vectors_column(unit_vectors(4, 0))})
    write_table(table, f"{folder}/centroids.parquet")
    for name in ("embeddings", "validation"):
        write_table(real_embeddings(40), f"{folder}/{name}.parquet")
    return folder


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def real_embeddings(count: int) -> pa.Table:
    """Training images `real-<n>` of group n % 4, as the clustering stage embeds them."""
    return pa.table(
        {
            "id": [f"real-{n}" for n in range(count)],
            "group": pa.array(np.arange(count) % 4, pa.int32()),
            "embedding": vectors_column(unit_vectors(count, 1)),
            "mirrored": vectors_column(unit_vectors(count, 2)),
        }
    )


def records(config: Config) -> list[Adapter]:
    """What fine-tuning says of its adapters."""
    return [
        Adapter(
            name=f"{group}-{cluster}",
            engine="full" if config.finetune.engine == "full" else "lora",
            scope="group_cluster",
            group=group,
            cluster=cluster,
            label=GROUPS.label_names[GROUPS.label(group)],
            attribute=GROUPS.attribute_names[GROUPS.attribute(group)],
            prompt=spoken(config.prompts, GROUPS, group),
            images=20,
            steps=1,
            loss=0.0,
        )
        for group, cluster in CLUSTERS
    ]


def shared_record() -> Adapter:
    """What fine-tuning says of a model for all groups."""
    return Adapter("shared", "full", "all", -1, -1, "", "", "", 600, 1, 0.0)


def planned(
    config: Config,
    adapters: Sequence[Adapter],
    groups: Groups,
    counts: Sequence[int],
    sources: Mapping[int, Sequence[str]] | None = None,
) -> pa.Table:
    """The specs of a configuration."""
    return whole(plan_of(config, adapters, groups, counts, sources))


def plan_of(
    config: Config,
    adapters: Sequence[Adapter],
    groups: Groups,
    counts: Sequence[int],
    sources: Mapping[int, Sequence[str]] | None = None,
) -> Spoken:
    """The plan of a configuration."""
    recipe = settled(recipe_of(config), np.array(counts))
    return plan_specs(Asked.of(config, recipe), adapters, groups, counts, sources)
