"""The knobs of `synthesis`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
)

from raysynth.knobs import Count, Section, Share, knob
from raysynth.registry import chosen_part
from raysynth.scoring.scorer import SCORERS, USUAL
from raysynth.synthesis.guidance import GUIDANCE
from raysynth.synthesis.schedule import SCHEDULES

MASK_DRAWS = 4
"""Noises that a mask is averaged over (DiffEdit's are 10; 8 overlap no better, decisions/021)."""
PILOTS = 64
"""Images of each group that drawn colours are measured on, at most."""

GUIDED: Any = {"name": "classifier_free", "interval": (0.3, 1.0)}
"""At the lowest levels guidance changes next to nothing and is a second evaluation: seven of eight
are left of four steps (docs/notebook/2026-11-29-gaussian-start.md)."""


class RebalanceConfig(Section):
    """Images bred from those that show their group's attribute, where prompts do not name it."""

    judge: Literal["none", "clip"] = knob(
        "none",
        "Who says whether an image shows its group's attribute; clip: the likeliest of the "
        "attributes' words for base.clip; none: nothing is bred.",
    )
    founders: Count = knob(
        8, "Images found among plain ones, of each model and group, that others are bred from."
    )
    children: Count = knob(3, "Children of each accepted image.")
    sigma: Annotated[float, Field(gt=0)] = knob(
        0.5, "How far a child's noise is from its parent's, in standard deviations."
    )

    @property
    def on(self) -> bool:
        """Whether images are bred."""
        return self.judge != "none"


class SynthesisConfig(Section):
    """Generation of the candidate images."""

    images_per_group: Count = knob(800, "Candidates generated per group.")
    steps: Count | None = knob(
        None,
        "Solver steps per image. None: 4 where images begin at their group's Gaussian "
        "(`gaussian_above`), 6 where they begin as pure noise or are edited.",
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = knob(
        None, "CFG weight; <= 1: off, negative prompts too. None: the generator's own."
    )
    guidance: tuple[chosen_part(GUIDANCE), ...] = knob(  # type: ignore[valid-type]
        (GUIDED,),
        "Guidance terms, applied in order; each may name rows that a step evaluates besides the "
        "prompt's.",
        neutral=["classifier_free"],
    )
    scorers: tuple[chosen_part(SCORERS), ...] = knob(  # type: ignore[valid-type]
        USUAL,
        "What is said of every candidate, in columns of the synthetic table; selection reads those "
        "of the usual two.",
        neutral=list(USUAL),
    )
    lender: Literal["label", "attribute"] = knob(
        "attribute",
        "Whose model generates a group that has too few images for its own "
        "(finetune.min_images): its attribute's largest group's, or its class's (paper).",
    )
    mask: Literal["diffedit", "none"] = knob(
        "diffedit",
        "edit: what of a real image is regenerated with `strength`: the part that the "
        "attribute's words are about, or all of it.",
    )
    mask_margin: Annotated[int, Field(ge=0)] = knob(
        1, "edit with a mask: latent positions that it is widened by."
    )
    strength: Annotated[float, Field(gt=0, le=1)] | None = knob(
        None,
        "edit: noise put on a real image before it is regenerated, as a share of the "
        "schedule (the nearest of steps / (steps + 1), steps / (steps + 2), ...); 1: nothing is "
        "left of it. None: 1 with a mask, 0.85 without.",
    )
    strength_outside: tuple[Share, Share] = knob(
        (0.5, 0.5),
        "edit with a mask: the same outside it, a range of which every image takes its "
        "own; 0: nothing changes there.",
    )
    solver: Literal["dpmsolver++", "unipc", "ddim", "base"] = knob(
        "dpmsolver++", "Diffusion solver; base: the one the base model ships."
    )
    schedule: chosen_part(SCHEDULES) = knob(  # type: ignore[valid-type]
        "even",
        "At which noise levels the solver's steps are; others than `even` need dpmsolver++ or "
        "unipc.",
        neutral="even",
    )
    gaussian_above: Annotated[float, Field(gt=0, le=1)] | None = knob(
        None,
        "Noise level, as a share of the schedule, above which images are drawn from the Gaussian "
        "of their group's real latents instead of by the network; 1: they begin as pure noise. "
        "None: 0.8 with dpmsolver++ and unipc, which can begin there; 1 with others, for edited "
        "images, and where nothing is trained.",
    )
    rebalance: RebalanceConfig = knob(
        RebalanceConfig(),
        "Breeding of images that show their group's attribute, where prompts do not name it.",
    )
    colours: Literal["drawn", "matched"] = knob(
        "drawn",
        "matched: each image's mean colour is moved, so that those of a group lie as in its real "
        "images; drawn: as the model drew them. Edited images keep those of what they are made of.",
    )
    batch_size: Count = knob(64, "Images denoised at once.", width=True)
    compile: bool | Literal["auto"] = knob(
        "auto",
        "torch.compile the UNet for full batches of one adapter: 1.5 times as fast on CPUs, after "
        "a minute of compiling in every actor. auto: on CPUs with a C++ compiler, where an actor "
        "draws 30,000 images or more.",
        neutral="auto",
    )
    decode_batch_size: Count | None = knob(
        None,
        "Images decoded at once; the decoder needs the most memory per image. None: a "
        "megapixel's worth, at most 32 images.",
        width=True,
    )
    fused: Annotated[int, Field(ge=2)] = knob(
        2, "loft: adapters of single images that each image is drawn with.", neutral=2
    )
    image_size: Annotated[int, Field(ge=8)] | None = knob(
        None, "Side of generated images, pixels; None: the base model's own."
    )
    rows_per_shard: Count = knob(1000, "Most images per Parquet shard (of one group).")
    actors: Count = knob(2, "Generating actors in parallel.", width=True)
