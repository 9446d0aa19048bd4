"""What the search found out: trials that were stopped, the defaults, what mattered."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from raysynth.report.content import Content

VALIDATION = "validation_wga"
FEWEST = 8
"""Trials from which importances are computed."""
SAME = 1e-6
"""Relative: numbers of Parquet and of the configuration."""


def parameters(content: Content) -> list[str]:
    """What the search set, of which its trials have more than one value; the ratio first."""
    trials = content.trials
    names = [name for name in content.best.get("parameters", {}) if name in trials]
    return [name for name in names if trials[name].nunique() > 1]


def constants(content: Content) -> dict[str, Any]:
    """What the search could have set, but which has the same value in all trials."""
    trials, moving = content.trials, parameters(content)
    names = [name for name in content.best.get("parameters", {}) if name in trials]
    return {name: trials[name].iloc[0] for name in names if name not in moving and len(trials)}


def stopped(trials: pd.DataFrame) -> pd.Series:
    """Which trials ASHA ended before the last of their own steps."""
    return trials["reached"] < trials["steps"].round()


def is_default(content: Content) -> pd.Series:
    """Which trials are the configured values, at any ratio (`search.space.first_points`)."""
    # Here, not above: Ray Tune takes seconds, and runs without a search need none of it.
    from raysynth.search.space import first_points

    trials, config = content.trials, content.config
    found = pd.Series(False, index=trials.index)
    for point in first_points(config.classifier, config.search):
        alike = pd.Series(True, index=trials.index)
        for name, value in point.items():
            if name in trials:
                alike &= np.isclose(trials[name].astype(float), float(value), rtol=SAME, atol=1e-12)
        found |= alike
    return found


def notes(content: Content) -> list[str]:
    """What a reader should know of this run's trials, a sentence each."""
    trials = content.trials
    if trials.empty:
        return []
    early, default = stopped(trials), is_default(content)
    found = []
    if early.any():
        found.append(
            f"{early.sum()} of {len(trials)} trials were stopped early (drawn hollow): their "
            "numbers are of less training and no fair comparison."
        )
    real = trials["ratio"] == 0
    if real.any() and early[real].all():
        found.append(
            "All trials on real images alone (ratio 0) were stopped early: they are no evidence "
            "that synthetic images were needed, or that they were not."
        )
    if default.any() and not default.all():
        found.append(_against_defaults(trials, default))
    if fixed := constants(content):
        said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in fixed.items())
        found.append(f"Not searched, the same in all trials and not drawn: {said}.")
    return found


def _against_defaults(trials: pd.DataFrame, default: pd.Series) -> str:
    top, usual = trials.loc[~default, VALIDATION].max(), trials.loc[default, VALIDATION].max()
    if top > usual:
        return (
            f"The search gained {100 * (top - usual):.1f} points of validation WGA over the best "
            "trial with the configured values."
        )
    return (
        "No trial beat the configured values: the best validation WGA, "
        f"{100 * usual:.1f} %, is that of a trial with the defaults. The search found nothing "
        "better, and fewer trials would have done."
    )


def importances(content: Content) -> dict[str, float]:
    """Share of the spread of validation WGA that each parameter explains; none of few trials.

    fANOVA (Hutter et al. 2014), Optuna's.
    """
    trials, names = content.trials, parameters(content)
    if len(trials) < FEWEST or len(names) < 2 or trials[VALIDATION].nunique() < 2:
        return {}
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    spans = {name: _span(trials[name]) for name in names}
    for _, row in trials.iterrows():
        values = {name: float(row[name]) for name in names}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=spans, value=row[VALIDATION])
        )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def _span(values: pd.Series) -> Any:
    """The distribution that trials' values are of: their range, by logarithm where it is wide."""
    from optuna.distributions import FloatDistribution

    low, high = float(values.min()), float(values.max())
    return FloatDistribution(low, high, log=low > 0 and high > 10 * low)
