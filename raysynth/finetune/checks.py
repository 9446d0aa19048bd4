"""What fine-tuning refuses before anything is made: the base, terms, adapters that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysynth.clustering.settings import ClusteringConfig
from raysynth.errors import ConfigError
from raysynth.finetune.beginning import check_start
from raysynth.finetune.objective import Choosy
from raysynth.finetune.optimizer import check_optimizer
from raysynth.finetune.settings import OBJECTIVES, FinetuneConfig
from raysynth.finetune.term import check_mixture, terms_of
from raysynth.generators.recipe import Training, recipe_of
from raysynth.groups.groups import Groups
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.models.family import layers_of
from raysynth.models.quantisation import is_quantised
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import check_base, known_family

if TYPE_CHECKING:
    import numpy as np

    from raysynth.finetune.jobs import Job


def check_finetune(config: Sections) -> None:
    """Refuse a base model that is none, and terms or objectives that do not fit the run.

    Raises ConfigError, ModelError.
    """
    check_base(config[BaseConfigSection])
    training = recipe_of(config).training
    check_frozen(config[BaseConfigSection], training)
    check_text_encoder(config[FinetuneConfig], config.generator, training)
    check_layers(config[FinetuneConfig], config[BaseConfigSection], training)
    check_start(config[FinetuneConfig], config[BaseConfigSection], training)
    check_optimizer(config[FinetuneConfig], training)
    several = training is not None and training.shared
    settings = config[FinetuneConfig]
    check_terms(settings, config.generator, several)
    objective = OBJECTIVES[settings.objective.name]
    if training is not None and isinstance(objective, Choosy):
        objective.check(config, settings.objective.knobs(OBJECTIVES))


def check_jobs(config: Sections, groups: Groups, counts: np.ndarray) -> None:
    """Refuse classes without any group to train on, and overrides of adapters that cannot be.

    And terms that find nothing to compare. `counts`: [G] training images per group. Raises
    DataError, ConfigError.
    """
    from raysynth.finetune.experts import check_experts
    from raysynth.finetune.jobs import expected_jobs

    settings = config[FinetuneConfig]
    sections = (settings, config[PromptConfig], config[ClusteringConfig])
    jobs = expected_jobs(recipe_of(config), *sections, groups, counts)
    check_partners(settings, jobs, groups)
    check_experts(settings, config.generator, jobs)


def check_frozen(base: BaseConfigSection, training: Training | None) -> None:
    """Refuse a quantised base whose weights are trained; raises ConfigError."""
    if is_quantised(base) and training is not None and training.engine == "full":
        raise ConfigError(
            f"base.quantization={base.quantization}: this generator trains the base's own weights "
            "(finetune.engine=full), which would not move by steps so small; expected adapters on "
            "a frozen base. Fix: finetune.engine=lora, or base.quantization=none"
        )


def check_text_encoder(settings: FinetuneConfig, generator: str, training: Training | None) -> None:
    """Refuse adapters on the text encoder where there are no adapters; raises ConfigError."""
    if not settings.text_encoder or (training is not None and training.engine == "lora"):
        return
    trains = "nothing" if training is None else "the weights of the network alone"
    raise ConfigError(
        f"finetune.text_encoder=true: generator={generator} trains {trains}; expected LoRA "
        "adapters, which a text encoder can have too. Fix: finetune.engine=lora with a generator "
        "that is trained, or finetune.text_encoder=false"
    )


def check_layers(
    settings: FinetuneConfig, base: BaseConfigSection, training: Training | None
) -> None:
    """Refuse layers, or adapters of a text encoder, that the base's family has not; ConfigError.

    (What family a hub id is of is known when it is loaded.)
    """
    family = known_family(base)
    if family is None or training is None or training.engine != "lora":
        return
    if not layers_of(family, settings.targets):
        raise ConfigError(
            f"finetune.targets=[{', '.join(settings.targets)}]: {family.title} has no such layers; "
            f"expected some of {', '.join(family.targets)}. Fix: finetune.targets=[attention]"
        )
    if settings.text_encoder and not family.text_targets:
        raise ConfigError(
            f"finetune.text_encoder=true: base.name is {family.title}, of whose text encoder "
            "diffusers reads no adapters. Fix: finetune.text_encoder=false"
        )


def check_terms(settings: FinetuneConfig, generator: str, several: bool) -> None:
    """Refuse terms that a generator's models, or one another, have no use for.

    Parameters
    ----------
    several : whether one model of the generator speaks for several groups.

    Raises
    ------
    ConfigError
        Models of one group, or none; a term twice; two that pull against each other.
    """
    names = [one.name for one in settings.terms]
    if not names:
        return
    if not several:
        raise ConfigError(
            f"finetune.terms=[{', '.join(names)}]: need one model that speaks for several groups; "
            f"got generator={generator}, whose models know one group each, or are not trained. "
            "Fix: generator=shared (of generator=auto: candidates=[shared, edit]), or "
            "finetune.terms=[]"
        )
    check_mixture("finetune.terms", names)


def check_partners(settings: FinetuneConfig, jobs: Sequence[Job], groups: Groups) -> None:
    """Refuse terms that find nothing to compare in a model's groups; raises ConfigError."""
    for added in terms_of(settings):
        for job in jobs:
            spoken = [*job.prompts, *job.unseen]
            found = [added.term.partners(g, spoken, groups, added.knobs) for g in job.prompts]
            if not any(set(some) - {g} for g, some in zip(job.prompts, found, strict=True)):
                raise ConfigError(
                    f"finetune.terms: {added.name} compares groups that the model {job.name!r} "
                    f"does not speak for: it knows {', '.join(groups.name(g) for g in spoken)}. "
                    f"Fix: finetune.per=all, or other knobs of {added.name}"
                )
