"""The knobs of `selection`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Section, Share, knob
from raysynth.registry import Registry, named_part

RULES: Registry[Any] = Registry("raysynth.selection.rules", "selection rule")
SCORES: Registry[Any] = Registry("raysynth.selection.scores", "selection score")
QUOTAS: Registry[Any] = Registry("raysynth.selection.quotas", "quota")


class SelectionConfig(Section):
    """CLIP score and who is kept (Basu et al., arXiv 2511.08711); copies are rejected first."""

    rule: named_part(RULES) = knob(  # type: ignore[valid-type]
        "quantile",
        "quantile: best share of each group (paper); threshold: scores from `threshold` on; "
        "random: a random share (ablation); off: all.",
    )
    score: named_part(SCORES) = knob(  # type: ignore[valid-type]
        "clip",
        "What rules order candidates by; diffusion_classifier, both: of the scorer of that name, "
        "which synthesis.scorers must have.",
        neutral="clip",
    )
    alpha: Share = knob(0.5, "CLIP score = alpha * prompt + (1-alpha) * centroid.")
    keep: Annotated[float, Field(gt=0, le=1)] = knob(
        0.75, "quantile, random: share kept of each group."
    )
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = knob(
        None, "threshold: lowest score kept, a cosine."
    )
    per_cluster: bool = knob(False, "A group's kept images are shared equally by its clusters.")
    quota: named_part(QUOTAS) = knob(  # type: ignore[valid-type]
        "smallest",
        "How many of these each group keeps; smallest: as many as the smallest group could.",
        neutral="smallest",
    )
    copy_threshold: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = knob(
        "auto",
        "Similarity to a training image (cosine of whitened embeddings) above which an image is a "
        "copy; auto: per group, by validation images; null: none is.",
    )
    leak: Literal["none", "top1"] = knob(
        "none",
        "Whose images are dropped for what they owe to other groups; top1: those that owe another "
        "group than the one asked for most, which an audit of all images says.",
        neutral="none",
    )
    on_unfaithful: Literal["stop", "go_on", "real_only"] = knob(
        "stop",
        "Where kept images of a group do not show their label (stage `fidelity`): stop the run, go "
        "on with them, or train on real images only.",
    )

    @model_validator(mode="after")
    def _check(self) -> SelectionConfig:
        if RULES[self.rule].threshold != (self.threshold is not None):
            raise ValueError(
                f"selection.threshold: got {self.threshold} with rule {self.rule}; rule=threshold "
                "needs a number such as 0.8, the other rules none"
            )
        if self.threshold is not None and not SCORES[self.score].cosine:
            raise ValueError(
                f"selection.threshold: got {self.threshold} with score={self.score}, which is no "
                "cosine; expected score=clip. Fix: selection.score=clip, or selection.rule=quantile"
            )
        return self
