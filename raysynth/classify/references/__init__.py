"""References and mixtures, one file each; the registry by name.

All are tuned alike: every weight decay and learning rate of `references`, every evaluation as a
stopping point, chosen by validation WGA alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.classify.plan import Plan
from raysynth.classify.references.dfr_train import DFR_TRAIN
from raysynth.classify.references.dfr_validation import DFR_VALIDATION
from raysynth.classify.references.erm import ERM
from raysynth.classify.references.erm_balanced_head import ERM_BALANCED_HEAD
from raysynth.classify.references.ffr import FFR
from raysynth.classify.references.group_dro import GROUP_DRO
from raysynth.classify.references.jtt import JTT
from raysynth.classify.references.mixing import ASB, USB
from raysynth.classify.references.reference import Reference, Setting, settings
from raysynth.classify.references.resampling import RESAMPLING
from raysynth.classify.references.reweighting import REWEIGHTING
from raysynth.classify.references.self_disagreement import SELF
from raysynth.classify.references.subsampling import SUBSAMPLING
from raysynth.config import ReferencesConfig

_ALL = (
    ERM,
    REWEIGHTING,
    RESAMPLING,
    SUBSAMPLING,
    GROUP_DRO,
    JTT,
    ERM_BALANCED_HEAD,
    DFR_TRAIN,
    DFR_VALIDATION,
    SELF,
    FFR,
    USB,
    ASB,
)
REFERENCES: dict[str, Reference] = {reference.name: reference for reference in _ALL}

__all__ = ["REFERENCES", "Reference", "every_setting"]


def every_setting(
    names: Sequence[str], config: ReferencesConfig
) -> tuple[tuple[str, Setting, Plan], ...]:
    """(name, setting, training at the first seed) of all that is tried of these references."""
    return tuple(
        (name, setting, REFERENCES[name].plan(config, setting, seed=0))
        for name in names
        for setting in settings(config)
    )
