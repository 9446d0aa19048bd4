"""What selection cannot do without, refused before anything is made."""

from __future__ import annotations

from raysynth.errors import ConfigError
from raysynth.knobs import Sections
from raysynth.synthesis.settings import SynthesisConfig

NEEDED = ("clip_label", "clip_centroid", "nearest_similarity")
"""Columns of scorers that candidates are selected by."""


def check_scores(config: Sections) -> None:
    """Refuse a configuration whose scorers do not say what selection reads; raises ConfigError."""
    from raysynth.scoring.columns import scores_of

    names = [scorer.name for scorer in config[SynthesisConfig].scorers]
    if missing := sorted(set(NEEDED) - set(scores_of(names).names)):
        raise ConfigError(
            f"synthesis.scorers=[{', '.join(names)}] say nothing of {', '.join(missing)}, which "
            "selection reads; expected clip and copies among them. Fix: add them"
        )
