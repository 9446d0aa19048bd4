"""A generator as a run uses it: every number of it settled.

The paper publishes no training settings: the budgets are ours, measured on the embedded base
(benchmarks/generators.py). What the configuration says explicitly wins over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

from raysynth.generators.generator import GENERATORS, Engine, Generator, Scope


class Several(Protocol):
    """A configuration, of which `generator: auto` makes several."""

    @property
    def generator(self) -> str:
        """Name of the generator, or `auto`."""

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of the generators that `auto` tries."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The configuration with some values changed."""


C = TypeVar("C", bound=Several)


@dataclass(frozen=True)
class Budget:
    """What a model's training may take; a `finetune` knob of each one's name wins over it."""

    steps: int
    """Optimizer steps of a model, at most."""
    max_passes: float
    """Most times that a model sees each of its images."""
    batch_size: int
    """Images per step, at most."""
    learning_rate: float
    """AdamW's peak."""
    ema: float
    """Decay of the weights' moving average that is kept; 0: the last weights."""
    prior_weight: float
    """DreamBooth's prior preservation; 0: off."""


@dataclass(frozen=True)
class Training:
    """How a generator's models are fine-tuned."""

    engine: Engine
    """As `generator.Models`."""
    scope: Scope
    """As `generator.Models`; auto until the data are known (`lending.settled`)."""
    budget: Budget

    @property
    def shared(self) -> bool:
        """Whether a model speaks for several groups."""
        return self.scope in ("class", "attribute", "all", "auto")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which travel to a worker and into digests: the budget's beside the own."""
        return {"engine": self.engine, "scope": self.scope, **asdict(self.budget)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Training:
        """What `to_dict` gave."""
        budget = {key: value for key, value in values.items() if key not in ("engine", "scope")}
        return cls(values["engine"], values["scope"], Budget(**budget))


@dataclass(frozen=True)
class Recipe:
    """One generator as a run uses it."""

    name: str
    training: Training | None
    """None: the base model as it is."""
    token: bool
    """Whether prompts hold DreamBooth's rare token, where the model was trained on the group."""
    edits: bool
    """Whether real images are edited (SDEdit) instead of images drawn from noise."""
    masked: bool
    """Whether only what the attribute's words are about is edited at full strength (DiffEdit)."""
    begins: float
    """Noise level of the first step, as a share of the schedule; below 1 images are drawn from
    their group's Gaussian, noised to it (`raysynth.synthesis.gaussian`)."""
    recolours: bool
    """Whether drawn images take the mean colours of real ones (`raysynth.synthesis.colours`)."""
    steps: int
    """Of the solver."""
    strength: float
    """Noise put on an edited image, as a share of the schedule; with a mask: inside it."""
    guidance_scale: float
    min_images: int
    """Groups with fewer are trained on by none."""
    lender: Literal["label", "attribute"]
    """Whose model such a group takes, see `synthesis.lender`."""

    @property
    def midway(self) -> bool:
        """Whether images begin at a noised Gaussian."""
        return self.begins < 1

    @property
    def lent_by_attribute(self) -> bool:
        """Whether a small group may be drawn by a model of its attribute instead of its class."""
        if self.training is None or self.training.scope in ("all", "class"):
            return False
        return self.training.scope == "attribute" or self.lender == "attribute"

    def evaluations(self, steps: int, mask_draws: int) -> int:
        """Times that the network sees an image, its mask included.

        `steps`: times in the solver's steps (`synthesis.guidance.Guide`); a mask's draws are pairs.
        """
        return steps + 2 * mask_draws * self.masked


BUDGETS: dict[tuple[Engine, bool], Budget] = {
    ("lora", False): Budget(120, 75.0, 12, 2e-3, 0.0, 0.0),
    ("lora", True): Budget(240, 75.0, 32, 2e-3, 0.0, 0.0),
    ("full", False): Budget(40, 75.0, 32, 2e-4, 0.0, 1.0),
    ("full", True): Budget(150, 75.0, 64, 4e-4, 0.0, 0.0),
}
"""(engine, one model for several groups) -> defaults.

From benchmarks/generators.py and benchmarks/passes.py on outfits at severity 0.99; the LoRA of
several groups has not been tuned.
"""
GUIDANCE = 2.0
"""Classifier-free guidance's scale, where the next does not say otherwise."""
STRONGER_GUIDANCE: dict[tuple[Engine, bool], float] = {("full", True): 3.0}
"""As BUDGETS, and from the same benchmarks."""

BEGINS = 0.8
"""Where images begin that begin at a Gaussian (docs/notebook/2026-11-29-gaussian-start.md)."""
STEPS, STEPS_MIDWAY = 6, 4
"""Of images that begin as pure noise or as a real one, and of those that begin at a Gaussian."""
ANYWHERE = ("dpmsolver++", "unipc")
"""`synthesis.solver` that can begin at any level. DDIM's steps are evenly apart from the first."""

PROMPT_DROPOUT = 0.1
"""Share of images that are trained without prompt (Ho & Salimans 2022: 0.1 and 0.2 do best)."""

AUTO = "auto"
"""`generator`: several are tried, and each group takes its images from the one that suits it."""


def candidates(config: C) -> list[C]:
    """The configuration with each generator that `auto` tries; itself for any other generator."""
    if config.generator != AUTO:
        return [config]
    return [config.model_copy(update={"generator": name}) for name in config.candidates]


def recipe_of(config: Any) -> Recipe:
    """The recipe of the configured generator, every number of it settled.

    Settled once, where a stage begins, and handed down from there.
    """
    generator, synthesis = GENERATORS[config.generator], config.synthesis
    training, guidance = _training(generator, config.finetune)
    masked = generator.sampling.masks and synthesis.mask != "none"
    begins = _begins(synthesis, drawn=training is not None and not generator.sampling.edits)
    return Recipe(
        name=config.generator,
        training=training,
        token=generator.models is not None and generator.models.token,
        edits=generator.sampling.edits,
        masked=masked,
        begins=begins,
        recolours=synthesis.colours == "matched" and not generator.sampling.edits,
        steps=synthesis.steps or (STEPS_MIDWAY if begins < 1 else STEPS),
        strength=synthesis.strength or (1.0 if masked else generator.sampling.strength),
        guidance_scale=guidance if synthesis.guidance_scale is None else synthesis.guidance_scale,
        min_images=1 if training and training.scope == "image" else config.finetune.min_images,
        lender=synthesis.lender,
    )


def _begins(synthesis: Any, drawn: bool) -> float:
    """The level of the first step; `drawn`: of images that trained models draw.

    Edited images begin as real ones. Those of the base as it is show what it draws by itself.
    """
    if not drawn:
        return 1.0
    if synthesis.gaussian_above is not None:
        return float(synthesis.gaussian_above)
    return BEGINS if synthesis.solver in ANYWHERE else 1.0


def _training(generator: Generator, settings: Any) -> tuple[Training | None, float]:
    """How the generator's models are trained, and the guidance that they are sampled with."""
    models = generator.models
    if models is None:
        return None, GUIDANCE
    kind = (models.engine if settings.engine == "auto" else settings.engine, models.several)
    chosen = {
        key: value if (own := getattr(settings, key)) is None else own
        for key, value in asdict(BUDGETS[kind]).items()
    }
    scope = settings.per if models.scope == "auto" else models.scope
    guidance = STRONGER_GUIDANCE.get(kind, GUIDANCE)
    return Training(kind[0], scope, Budget(**chosen)), guidance


def prompt_dropout(asked: float | None, scope: str) -> float:
    """Share of a model's images that are trained without their prompt.

    None for a model per attribute unless it is asked for: what such a model draws without words is
    the label it saw, guidance steers away from it, and the other label's images come out purer than
    real ones (docs/decisions/012-prompt-dropout.md).

    Parameters
    ----------
    asked : `finetune.prompt_dropout`.
    scope : what the model is trained on, see `Training.scope`.
    """
    if asked is not None:
        return asked
    return 0.0 if scope == "attribute" else PROMPT_DROPOUT
