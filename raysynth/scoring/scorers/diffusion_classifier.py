"""Diffusion Classifier: which group's prompt the base explains an image best under, and how surely.

`dc_margin` is the least mean error under another group's prompt less that under the own, positive
where the base agrees; `dc_group` is the group of the least. The base judges as it is, without
adapters (ours): what drew an image under a prompt would find it likely under it. All prompts see
the same noise at the same timesteps; in stages, all groups are looked at few timesteps, and the own
group and its nearest rivals at all.
"""

from __future__ import annotations

from typing import Literal, Self

import pyarrow as pa
from pydantic import model_validator

from raysynth.groups.prompts import spoken
from raysynth.knobs import Count, Section, knob
from raysynth.scoring.scorer import Images, Score, Scoring


class DiffusionClassifierKnobs(Section):
    """How closely the base looks."""

    timesteps: Count = knob(8, "Timesteps, evenly spread over the noise schedule.")
    stages: tuple[Count, ...] = knob(
        (2, 8), "Timesteps that are looked at by the end of each stage."
    )
    keep: tuple[Count, ...] = knob((2, 1), "Groups that go on after each stage, at last 1.")
    power: Literal[1, 2] = knob(2, "Of the absolute error (theirs: 1 or 2, by the data set).")
    weighting: Literal["velocity", "noise", "clean"] = knob(
        "velocity", "In whose terms errors are (theirs: the noise's)."
    )

    @model_validator(mode="after")
    def _staged(self) -> Self:
        rising = sorted(set(self.stages)) == list(self.stages)
        if not self.stages or not rising or self.stages[-1] > self.timesteps:
            raise ValueError(
                f"stages: got {list(self.stages)} of timesteps={self.timesteps}, expected rising "
                "numbers up to that. Fix: stages=[2, 8] with timesteps=8"
            )
        falling = sorted(self.keep, reverse=True) == list(self.keep)
        if len(self.keep) != len(self.stages) or not falling or self.keep[-1] != 1:
            raise ValueError(
                f"keep: got {list(self.keep)} of stages={list(self.stages)}, expected as many "
                "falling numbers, the last of them 1. Fix: keep=[2, 1] with stages=[2, 8]"
            )
        if 1 in self.keep[:-1]:
            raise ValueError(
                f"keep: got {list(self.keep)}, expected 2 or more before the last stage: an own "
                "group alone has no margin. Fix: keep=[2, 1]"
            )
        return self

    def times(self) -> list[list[int]]:
        """Of each stage the timesteps that it adds, in 0..timesteps-1: evenly spread ones."""
        seen: list[int] = []
        added = []
        for count in self.stages:
            apart = self.timesteps // count
            even = range(apart // 2, self.timesteps, apart)[:count]
            added.append([k for k in even if k not in seen])
            seen += added[-1]
        return added


class DiffusionClassifier:
    """See `raysynth.scoring.scorer.Scorer`."""

    title = "Diffusion Classifier"
    source = "Li et al. 2023 (arXiv 2303.16203); their code"
    Knobs = DiffusionClassifierKnobs
    columns = pa.schema([("dc_margin", pa.float32()), ("dc_group", pa.int32())])

    def evaluations(self, groups: int, knobs: DiffusionClassifierKnobs) -> int:
        """Forwards of the base for one image."""
        left = [groups, *(min(groups, count) for count in knobs.keep)]
        return sum(n * len(added) for n, added in zip(left, knobs.times(), strict=False))

    def open(self, scoring: Scoring, knobs: DiffusionClassifierKnobs) -> Score:
        """Load the base once more, and what its text encoder says of the groups' prompts."""
        import torch

        from raysynth.models.likelihood import Measure, noise_of
        from raysynth.scoring.judged import judged

        groups, denoiser = scoring.groups, scoring.denoiser
        texts = [spoken(scoring.prompts, groups, g, token="") for g in range(groups.count)]
        told, times = denoiser.base.condition(texts), knobs.times()

        @torch.inference_mode()
        def score(images: Images, specs: pa.Table) -> dict[str, pa.Array]:
            clean = images.latents
            if clean is None:
                raise ValueError("diffusion_classifier: got no latents, expected the actor's")
            names = [str(seed) for seed in specs["seed"].to_pylist()]
            noise = noise_of(names, range(knobs.timesteps), clean.shape[1:])
            own = torch.tensor(specs["group"].to_pylist())
            # As many rows at once as a guided step has.
            how = Measure(knobs.power, knobs.weighting, 2 * len(clean))
            found = judged(denoiser, clean, told, noise, times, knobs.keep, own, how)
            return {
                "dc_margin": pa.array(found.margin.numpy(), pa.float32()),
                "dc_group": pa.array(found.group.numpy(), pa.int32()),
            }

        return score


PART = DiffusionClassifier()
