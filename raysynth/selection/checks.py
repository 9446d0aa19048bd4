"""What selection cannot do without, refused before anything is made."""

from __future__ import annotations

from raysynth.audit.settings import AuditConfig
from raysynth.errors import ConfigError
from raysynth.knobs import Sections
from raysynth.selection.rule import SCORES
from raysynth.selection.settings import SelectionConfig
from raysynth.synthesis.settings import SynthesisConfig

NEAREST = "nearest_similarity"
"""Column by which copies are told."""


def check(config: Sections) -> None:
    """Refuse what `check_scores` and `check_leak` do; raises ConfigError."""
    check_scores(config)
    check_leak(config)


def check_leak(config: Sections) -> None:
    """Refuse to drop images for what they owe where nobody says it of all; raises ConfigError."""
    leak, audit = config[SelectionConfig].leak, config[AuditConfig]
    if leak == "none":
        return
    if audit.is_off:
        raise ConfigError(
            f"selection.leak={leak}: audit.method=none, so nobody says what images owe; expected "
            "an audit. Fix: audit.method=guda and audit.images_per_group=null, or "
            "selection.leak=none"
        )
    made, looked_at = config[SynthesisConfig].images_per_group, audit.images_per_group
    if looked_at is not None and looked_at < made:
        raise ConfigError(
            f"selection.leak={leak}: audit.images_per_group={looked_at} of "
            f"synthesis.images_per_group={made}; expected an audit of all candidates. Fix: "
            "audit.images_per_group=null, or selection.leak=none"
        )


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
