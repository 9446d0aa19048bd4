"""What is asked of the workers: sections, seed, folder, and the digest of each stage."""

from __future__ import annotations

from dataclasses import dataclass

from raysynth.cluster.settings import ResourcesConfig
from raysynth.datasets.contents import folder_digest, source_digest
from raysynth.datasets.settings import DatasetConfig
from raysynth.fidelity.settings import FidelityConfig
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections, decides, digest_of
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.build import Blueprint, blueprint_of
from raysynth.networks.settings import ClassifierConfig
from raysynth.pretraining.checks import check_sizes, check_start, check_workers, start_folder
from raysynth.pretraining.settings import NONE, WORDS, PretrainingConfig
from raysynth.pretraining.terms import check_terms

BASE, BARS = "base", "bars.json"
"""Below the folder: what is exported, and what it reaches."""


@dataclass(frozen=True)
class Bar:
    """One measured number, and what it should reach (None: only told)."""

    name: str
    value: float
    least: float | None = None

    def __str__(self) -> str:
        said = ""
        if self.least is not None:
            said = f"  {'reached' if self.value >= self.least else 'missed'} {self.least:g}"
        return f"{self.name:<62} {self.value:8.3f}{said}"


@dataclass(frozen=True)
class Order:
    """Everything a worker needs to know."""

    settings: PretrainingConfig
    dataset: DatasetConfig
    prompts: PromptConfig
    base: BaseConfigSection
    resources: ResourcesConfig
    fidelity: FidelityConfig
    blueprint: Blueprint
    seed: int
    folder: str
    keys: dict[str, str]
    """Stage -> digest of what decides it."""

    @property
    def exported(self) -> str:
        """Folder of the base."""
        return f"{self.folder}/{BASE}"


def stages_of(settings: PretrainingConfig) -> list[str]:
    """Names of what is made, in order: without words no joint pair and no judge."""
    joint = ["clip-joint"] if settings.captions != NONE else []
    judged = ["judge"] if settings.captions == WORDS else []
    trained = ["clip", "autoencoder", "latents", "denoiser"]
    return [*joint, *trained, "export", *judged, "bars"]


def order_of(config: Sections, folder: str) -> Order:
    """The order of a configuration.

    The classifier's network judges likeness as the fidelity stage's does, but not by the CLIP that
    is only being made. Raises ConfigError, ModelError for what `checks` refuses.
    """
    settings = config[PretrainingConfig]
    check_workers(settings, config[ResourcesConfig])
    check_sizes(settings)
    check_start(settings)
    check_terms(settings)
    return Order(
        settings,
        config[DatasetConfig],
        config[PromptConfig],
        config[BaseConfigSection],
        config[ResourcesConfig],
        config[FidelityConfig],
        blueprint_of(config),
        config.seed,
        folder,
        _keys(config, settings),
    )


def _keys(config: Sections, settings: PretrainingConfig) -> dict[str, str]:
    """Digests: a stage whose settings change begins anew, and what was made before stays."""
    prompts, told = config[PromptConfig], decides(settings)
    own = {part: told.pop(part) for part in ("clip", "autoencoder", "denoiser")}
    judged, drawn = told.pop("judge_steps"), told.pop("samples")
    dataset, start = config[DatasetConfig], settings.start
    data = [
        folder_digest(str(start_folder(start))) if start else "",
        *(decides(dataset.model_copy(update={"captions": None})), source_digest(dataset, {})),
        *(prompts.template, prompts.token, config[BaseConfigSection].dtype, config.seed, told),
    ]
    latents = own["denoiser"].pop("latents")
    joint = {key: value for key, value in own["clip"].items() if key != "alone_steps"}
    space = (decides(config[FidelityConfig]), config[ClassifierConfig].backbone)
    rows = {
        "clip-joint": [data, joint],
        "clip": [data, own["clip"]],
        "autoencoder": [data, own["autoencoder"]],
        "latents": [data, own["autoencoder"], latents],
        "denoiser": [data, joint, own["autoencoder"], own["denoiser"], latents],
        "judge": [data, judged],
        "bars": [data, own, latents, judged, drawn, *space],
    }
    return {name: digest_of(row)[:12] for name, row in rows.items()}
