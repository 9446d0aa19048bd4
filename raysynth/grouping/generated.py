"""Images of every class as a base draws them that has learnt the training images by class alone.

A biased network that is trained on these instead of on the images themselves has none of the few
that conflict to learn by heart: after Diffusing DeBias (Ciranni et al. 2025, arXiv 2502.09564),
whose class-conditional diffusion model is trained from nothing. Ours: a LoRA on the base, told the
class in its prompt; all numbers.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raysynth.errors import StageError
from raysynth.groups.groups import Groups
from raysynth.groups.prompts import alone
from raysynth.groups.settings import PromptConfig
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.images import ImageSet

if TYPE_CHECKING:
    from raysynth.finetune.jobs import Job
    from raysynth.generators.recipe import Recipe
    from raysynth.synthesis.settings import SynthesisConfig

NAME = "classes"
"""What the model is called."""
BATCH, LEARNING_RATE, MAX_PASSES = 16, 2e-3, 75.0
STEPS = 6
"""Of the solver."""
STREAM = 347
"""Sets its random numbers apart from those of the run's own models and images."""


def evaluations(guidance_scale: float) -> int:
    """Times that the network sees an image which is drawn."""
    from raysynth.synthesis.guidance import guide_of

    return guide_of(_synthesis(guidance_scale).guidance, guidance_scale).evaluations(STEPS)


def drawn_images(
    real: str,
    train: ImageSet,
    groups: Groups,
    prompts: PromptConfig,
    base: BaseConfigSection,
    knobs: Any,
    seed: int,
) -> ImageSet:
    """`knobs.images` images, as many of each class as of any, of the training images' size.

    Raises StageError where the base cannot be trained on them.

    Parameters
    ----------
    real : folder of the real table, which has the training images.
    knobs : of `methods.conflict_mining`.
    seed : the run's.
    """
    from raysynth.cluster.settings import ResourcesConfig
    from raysynth.finetune.packs import Pack
    from raysynth.finetune.settings import FinetuneConfig
    from raysynth.finetune.training import train_pack

    classes = replace(groups, attribute_names=("",), attribute_words=("",), aligned=())
    job, recipe = _job(train, classes, prompts, knobs), _recipe(knobs)
    training, settings = recipe.training, FinetuneConfig()
    assert training is not None
    own = int(np.random.SeedSequence([seed, STREAM]).generate_state(1)[0])
    with tempfile.TemporaryDirectory(prefix="raysynth-classes-") as work:
        given = (settings, base, ResourcesConfig(), classes, own, real, work)
        if failed := train_pack(Pack([job], training, *given), _quiet):
            raise StageError(
                f"grouping.method=conflict_mining: the base could not be trained on the images "
                f"({failed[NAME]}); expected a model of the classes. Fix: what the reason says, or "
                "biased_on: real"
            )
        return _drawn(base, recipe, work, job.prompts, own, train.size, knobs)


def _job(train: ImageSet, classes: Groups, prompts: PromptConfig, knobs: Any) -> Job:
    """The training of one model on all images, each under the prompt of its class."""
    from raysynth.finetune.jobs import SHARED, Job

    told = {
        token: {y: alone(prompts, classes, y, "label", token=token) for y in range(classes.count)}
        for token in (None, "")
    }
    return Job(
        name=NAME,
        scope="all",
        group=SHARED,
        cluster=SHARED,
        label=SHARED,
        attribute=SHARED,
        ids=tuple(train.ids.tolist()),
        groups=tuple(train.label.tolist()),
        prompts=told[None],
        plain_prompts=told[""],
        unseen={},
        conflicting=(),
        oversample=0.0,
        max_passes=MAX_PASSES,
        steps=knobs.base_steps,
        batch=min(BATCH, len(train)),
        learning_rate=LEARNING_RATE,
    )


def _recipe(knobs: Any) -> Recipe:
    from raysynth.generators.recipe import Budget, Recipe, Training

    budget = Budget(knobs.base_steps, MAX_PASSES, BATCH, LEARNING_RATE, 0.0, 0.0)
    return Recipe(
        name=NAME,
        training=Training("lora", "all", budget),
        token=True,
        edits=False,
        masked=False,
        begins=1.0,
        recolours=False,
        steps=STEPS,
        strength=1.0,
        guidance_scale=knobs.guidance_scale,
        min_images=1,
        lender="label",
    )


def _synthesis(guidance_scale: float) -> SynthesisConfig:
    from raysynth.synthesis.settings import SynthesisConfig

    told = {"guidance": ["classifier_free"], "guidance_scale": guidance_scale, "steps": STEPS}
    return SynthesisConfig.model_validate({**told, "gaussian_above": 1.0})


def _drawn(
    base: BaseConfigSection,
    recipe: Recipe,
    work: str,
    prompts: dict[int, str],
    seed: int,
    size: int,
    knobs: Any,
) -> ImageSet:
    from raysynth.adapters.record import LoraShape
    from raysynth.finetune.settings import FinetuneConfig
    from raysynth.synthesis.drawing import ImageGenerator
    from raysynth.synthesis.specs import image_seed
    from raysynth.synthesis.task import Drawing

    synthesis = _synthesis(knobs.guidance_scale)
    drawing = Drawing(base, synthesis, recipe, LoraShape.of(FinetuneConfig()))
    generate = ImageGenerator(drawing, work, [NAME])
    label = np.arange(knobs.images) % len(prompts)
    seeds = [image_seed(seed, y, 0, n // len(prompts)) for n, y in enumerate(label.tolist())]
    parts = []
    for rows in np.array_split(np.arange(len(label)), -(-len(label) // synthesis.batch_size)):
        said = [prompts[y] for y in label[rows].tolist()]
        same = ([""] * len(rows), [NAME] * len(rows))
        parts.append(_resized(generate(said, *same, [seeds[row] for row in rows]), size))
    pixels = np.ascontiguousarray(np.concatenate(parts).transpose(0, 3, 1, 2))
    return ImageSet(pixels, label, label, np.array([f"drawn-{n}" for n in range(len(label))]))


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[N, size, size, 3] images, as real ones of another size are read."""
    from raysynth.storage.tables import decode_bytes, encode_png

    if pixels.shape[1] == size:
        return pixels
    return decode_bytes(pa.array([encode_png(image) for image in pixels]), size)


def _quiet(done: dict[str, int], *more: object, **told: object) -> None:
    """Progress of a training that is part of a task."""
