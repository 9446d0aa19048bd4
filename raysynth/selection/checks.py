"""What selection cannot do without, refused before anything is made."""

from __future__ import annotations

from raysynth.errors import ConfigError
from raysynth.knobs import Sections
from raysynth.selection.rule import SCORES
from raysynth.selection.settings import SelectionConfig
from raysynth.synthesis.settings import SynthesisConfig

NEAREST = "nearest_similarity"
"""Column by which copies are told."""


def check_scores(config: Sections) -> None:
    """Refuse a configuration whose scorers do not say what selection reads; raises ConfigError."""
    from raysynth.scoring.columns import scores_of
    from raysynth.scoring.scorer import SCORERS

    score = config[SelectionConfig].score
    needed = {*SCORES[score].columns, NEAREST}
    names = [scorer.name for scorer in config[SynthesisConfig].scorers]
    if missing := sorted(needed - set(scores_of(names).names)):
        having = [name for name in SCORERS if needed & set(SCORERS[name].columns.names)]
        raise ConfigError(
            f"synthesis.scorers=[{', '.join(names)}] say nothing of {', '.join(missing)}, which "
            f"selection reads (selection.score={score}); expected {' and '.join(having)} among "
            "them. Fix: add them"
        )
