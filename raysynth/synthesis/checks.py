"""What synthesis refuses before anything is made: solver, schedule, scorers, guidance, breeding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raysynth.datasets.settings import DatasetConfig
from raysynth.errors import ConfigError
from raysynth.generators.recipe import Recipe, recipe_of
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.models.family import reader_of
from raysynth.models.settings import BaseConfigSection
from raysynth.models.sources import known_family, resolve
from raysynth.scoring.scorer import check_scorers
from raysynth.synthesis.guidance import ATTRIBUTE, LABEL, Guide, guide_of
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.solver import check_repeatable, check_solver


def check_synthesis(config: Sections) -> None:
    """Refuse what the base, the generator or the prompts have no use for.

    Raises ConfigError, ModelError: see `check_solver`, `check_scorers`, `check_guidance` and
    `check_rebalance`.
    """
    check_size(config[SynthesisConfig], config[BaseConfigSection])
    check_solver(config)
    check_scorers(config[SynthesisConfig].scorers, config[PromptConfig])
    check_guidance(config)
    check_rebalance(config)


def check_size(synthesis: SynthesisConfig, base: BaseConfigSection) -> None:
    """Refuse a size that is not whole latent positions, or patches of them; raises ConfigError.

    (What a hub id takes is known when it is loaded.)
    """
    if synthesis.image_size is not None:
        check_sides((synthesis.image_size,), base, "synthesis.image_size")


def check_sides(sides: Sequence[int], base: BaseConfigSection, key: str) -> None:
    """Refuse sides of images as `check_size` does; `key`: what they were given by."""
    if (family := known_family(base)) is None:
        return
    unit = family.shape(reader_of(Path(resolve(base.name)))).factor * family.patch
    if any(side % unit for side in sides):
        given, whole = (
            f"{found[0]}" if len(found) == 1 else f"[{', '.join(map(str, found))}]"
            for found in (sides, [max(unit, round(side / unit) * unit) for side in sides])
        )
        raise ConfigError(
            f"{key}={given}: base.name makes images of multiples of {unit} pixels. "
            f"Fix: {key}={whole}"
        )


def check_guidance(config: Sections) -> None:
    """Refuse terms that specs or edited images have no use for.

    Raises
    ------
    ConfigError
        See `guide_of`; or a term that is fitted to real images guides images that are edited; or
        one is of single words, which prompts do not have or a model does not tell apart.
    """
    recipe = recipe_of(config)
    guide = guide_of(config[SynthesisConfig].guidance, recipe.guidance_scale)
    if guide.alone:
        _check_words(guide, recipe, config[PromptConfig])
        _check_captions(guide, config[DatasetConfig])
    if guide.fitted and recipe.edits:
        raise ConfigError(
            f"synthesis.guidance: {guide.fitted[0].name} with generator={recipe.name}, whose "
            "images are as spread as those that it edits; expected images that are drawn. Fix: "
            "generator=shared, or leave the term out"
        )


def check_rebalance(config: Sections) -> None:
    """Refuse to breed images that are no function of inherited noise.

    Raises
    ------
    ConfigError
        Edited images, which show what they are edited from; a solver that adds noise.
    """
    if not config[SynthesisConfig].rebalance.on:
        return
    recipe = recipe_of(config)
    if recipe.edits:
        raise ConfigError(
            f"synthesis.rebalance: generator={recipe.name} edits real images, which decide what "
            "its images show; expected images that are drawn from noise alone. Fix: "
            "generator=shared, or synthesis.rebalance.judge=none"
        )
    check_repeatable(config)


def _check_captions(guide: Guide, dataset: DatasetConfig) -> None:
    """Refuse to ask for label and attribute one by one of images with captions; ConfigError."""
    if dataset.captions is None:
        return
    name = next(term.name for term in guide.terms if {LABEL, ATTRIBUTE} & {*term.rows})
    raise ConfigError(
        f"synthesis.guidance: {name} asks for the words of label and attribute alone; got "
        f"dataset.captions={dataset.captions}, by which prompts say more. Fix: leave "
        "dataset.captions out, or synthesis.guidance=[classifier_free]"
    )


def _check_words(guide: Guide, recipe: Recipe, prompts: PromptConfig) -> None:
    """Refuse to ask for label and attribute one by one where they cannot be; ConfigError."""
    name = next(term.name for term in guide.terms if {LABEL, ATTRIBUTE} & {*term.rows})
    if "attribute" not in prompts.fields:
        raise ConfigError(
            f"synthesis.guidance: {name} asks for the attribute's word alone; got prompts.template="
            f"{prompts.template!r} without {{attribute}}. Fix: speak of the attribute, e.g. "
            f"{PromptConfig().template!r}, or synthesis.guidance=[classifier_free]"
        )
    if recipe.training is not None and not recipe.training.shared:
        raise ConfigError(
            f"synthesis.guidance: {name} adds up what labels and attributes look like apart from "
            f"each other; got generator={recipe.name}, whose models know one group each; expected "
            "one that speaks for several. Fix: generator=shared with finetune.terms=[coind], or "
            "synthesis.guidance=[classifier_free]"
        )
