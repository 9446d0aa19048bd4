"""What synthesis refuses before anything is made: its solver, its schedule, its scorers."""

from __future__ import annotations

from raysynth.groups.settings import PromptConfig
from raysynth.knobs import Sections
from raysynth.scoring.scorer import check_scorers
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.synthesis.solver import check_solver


def check_synthesis(config: Sections) -> None:
    """Refuse what the base, the generator or the prompts have no use for.

    Raises ConfigError, ModelError: see `check_solver`, `check_scorers`.
    """
    check_solver(config)
    check_scorers(config[SynthesisConfig].scorers, config[PromptConfig])
