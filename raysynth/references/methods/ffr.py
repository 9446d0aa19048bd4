"""FFR, from fake to real: synthetic images first, then all weights on the real ones.

Step 1: cross-entropy on group-balanced synthetic images alone, as many per group as ASB adds.
Step 2: from the best step 1 by validation WGA, cross-entropy on the real images, all weights. The
authors' images are prompt only: run it with the generator `vanilla`. Both steps have
`references.steps`; the authors have 50 epochs each and a tenth of the learning rate in step 1.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, Setting, on_real
from raysynth.references.settings import ReferencesConfig
from raysynth.training.plan import Phase


def _phases(config: ReferencesConfig, setting: Setting) -> tuple[Phase, ...]:
    fake = on_real(config, setting, images="synthetic_fill", keep_best=config.evaluations)
    return fake, on_real(config, setting)


PART = Reference(
    "FFR",
    "Qraitem et al. 2024 (arXiv 2308.04553), FFR with ERM; their code",
    _phases,
    kind="mixture",
)
