"""The generators, each a recipe: what is fine-tuned on which images, and how images are made.

`vanilla`, `lora`, `dreambooth` and `clustered_dreambooth` are the four of Basu et al.
(arXiv 2511.08711); `shared` and `edit` are ours. The paper publishes no training settings: the
budgets are ours, measured on the embedded base (benchmarks/generators.py). What the configuration
says explicitly wins over them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from raysynth.finetune.settings import FinetuneConfig

if TYPE_CHECKING:
    from raysynth.config.config import Config

Engine = Literal["lora", "full"]
Scope = Literal["group", "group_cluster", "class", "attribute", "all", "auto"]


@dataclass(frozen=True)
class Training:
    """How a generator's models are fine-tuned."""

    engine: Engine
    """lora: adapters; full: all weights of the UNet."""
    scope: Scope
    """What one model is trained on: a group, a cluster of one, the groups of a class or of an
    attribute, or all; auto until the data are known (`settled`)."""
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

    @property
    def shared(self) -> bool:
        """Whether a model speaks for several groups."""
        return self.scope in ("class", "attribute", "all", "auto")


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
    strength: float
    """Noise put on an edited image, as a share of the schedule; with a mask: inside it."""
    guidance_scale: float

    def evaluations(self, steps: int, copies: int) -> int:
        """Times that the network sees an image of `steps` solver steps, its mask included.

        `copies`: times at each step (`synthesis.guidance.Guide`).
        """
        return steps * copies + 2 * MASK_DRAWS * self.masked


@dataclass(frozen=True)
class Budget:
    """Defaults of one engine, for models of one group (or cluster), or of several groups."""

    steps: int
    max_passes: float
    batch_size: int
    learning_rate: float
    ema: float
    prior_weight: float
    guidance_scale: float


BUDGETS: dict[tuple[Engine, bool], Budget] = {
    ("lora", False): Budget(120, 75.0, 12, 2e-3, 0.0, 0.0, 2.0),
    ("lora", True): Budget(240, 75.0, 32, 2e-3, 0.0, 0.0, 2.0),
    ("full", False): Budget(40, 75.0, 32, 2e-4, 0.0, 1.0, 2.0),
    ("full", True): Budget(150, 75.0, 64, 4e-4, 0.0, 0.0, 3.0),
}
"""(engine, one model for several groups) -> defaults.

From benchmarks/generators.py and benchmarks/passes.py on outfits at severity 0.99; the LoRA of
several groups has not been tuned.
"""

_OWN: dict[str, tuple[Engine, Scope]] = {
    "lora": ("lora", "group"),
    "dreambooth": ("full", "group"),
    "clustered_dreambooth": ("lora", "group_cluster"),
    "shared": ("full", "auto"),
    "edit": ("full", "auto"),
}


UNMASKED = 0.85
"""Strength of edits of whole images: less leaves a trace of the old attribute (decisions/021)."""

PROMPT_DROPOUT = 0.1
"""Share of images that are trained without prompt (Ho & Salimans 2022: 0.1 and 0.2 do best)."""

MASK_DRAWS = 4
"""Noises that a mask is averaged over (DiffEdit's are 10; 8 overlap no better, decisions/021)."""

AUTO = "auto"
"""`generator`: several are tried, and each group takes its images from the one that suits it."""


def candidates(config: Config) -> list[Config]:
    """The configuration with each generator that `auto` tries; itself for any other generator."""
    if config.generator != AUTO:
        return [config]
    return [config.model_copy(update={"generator": name}) for name in config.candidates]


def recipe_of(config: Config) -> Recipe:
    """The recipe of the configured generator, every number of it settled."""
    name, settings = config.generator, config.finetune
    guidance = config.synthesis.guidance_scale
    if name == "vanilla":
        plain = BUDGETS["lora", False].guidance_scale
        return Recipe(
            name=name,
            training=None,
            token=False,
            edits=False,
            masked=False,
            strength=1.0,
            guidance_scale=plain if guidance is None else guidance,
        )
    engine, scope = _OWN[name]
    if settings.engine != "auto":
        engine = settings.engine
    several = scope == "auto"
    if several:
        scope = settings.per
    budget = BUDGETS[engine, several]
    chosen = {
        key: value if (own := getattr(settings, key)) is None else own
        for key, value in asdict(budget).items()
        if key != "guidance_scale"
    }
    edits = name == "edit"
    masked = edits and config.synthesis.mask != "none"
    return Recipe(
        name=name,
        training=Training(engine=engine, scope=scope, **chosen),
        token=True,
        edits=edits,
        masked=masked,
        strength=config.synthesis.strength or (1.0 if masked else UNMASKED),
        guidance_scale=budget.guidance_scale if guidance is None else guidance,
    )


def prompt_dropout(settings: FinetuneConfig, scope: str) -> float:
    """Share of a model's images that are trained without their prompt.

    None for a model per attribute unless it is asked for: what such a model draws without words is
    the label it saw, guidance steers away from it, and the other label's images come out purer than
    real ones (docs/decisions/012-prompt-dropout.md).

    Parameters
    ----------
    scope : what the model is trained on, see `Training.scope`.
    """
    if settings.prompt_dropout is not None:
        return settings.prompt_dropout
    return 0.0 if scope == "attribute" else PROMPT_DROPOUT
