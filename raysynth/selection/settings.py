"""The knobs of `selection`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from raysynth.knobs import Section, Share


class SelectionConfig(Section):
    """CLIP score and who is kept (Basu et al., arXiv 2511.08711); copies are rejected first."""

    rule: Literal["quantile", "threshold", "random", "off"] = Field(
        "quantile",
        description="quantile: best share of each group (paper); threshold: scores from "
        "`threshold` on; random: a random share (ablation); off: all.",
    )
    alpha: Share = Field(0.5, description="Score = alpha * prompt + (1-alpha) * centroid.")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="quantile, random: share kept of each group."
    )
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        None, description="threshold: lowest score kept, a cosine."
    )
    per_cluster: bool = Field(
        False, description="A group's kept images are shared equally by its clusters."
    )
    copy_threshold: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = Field(
        "auto",
        description="Similarity to a training image of its class (cosine of whitened embeddings) "
        "above which an image is a copy; auto: per group, by validation images; null: none is.",
    )

    @model_validator(mode="after")
    def _check(self) -> SelectionConfig:
        if (self.rule == "threshold") != (self.threshold is not None):
            raise ValueError(
                f"selection.threshold: got {self.threshold} with rule {self.rule}; rule=threshold "
                "needs a number such as 0.8, the other rules none"
            )
        return self
