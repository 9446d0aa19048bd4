"""References and mixtures, one file each; the registry by name.

All are tuned alike: every weight decay and learning rate of `references`, every evaluation as a
stopping point, chosen by validation WGA alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysynth.references.methods.dfr_train import DFR_TRAIN
from raysynth.references.methods.dfr_validation import DFR_VALIDATION
from raysynth.references.methods.erm import ERM
from raysynth.references.methods.erm_balanced_head import ERM_BALANCED_HEAD
from raysynth.references.methods.ffr import FFR
from raysynth.references.methods.group_dro import GROUP_DRO
from raysynth.references.methods.jtt import JTT
from raysynth.references.methods.mixing import ASB, USB
from raysynth.references.methods.resampling import RESAMPLING
from raysynth.references.methods.reweighting import REWEIGHTING
from raysynth.references.methods.self_disagreement import SELF
from raysynth.references.methods.subsampling import SUBSAMPLING
from raysynth.references.reference import Reference, Setting, settings
from raysynth.references.settings import ReferencesConfig
from raysynth.training.plan import Plan

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
