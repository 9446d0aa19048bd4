"""DFR on training images: ERM features, last layers fitted to group-balanced subsets, averaged.

The encoder is ERM's. Features are standardised by all training images; logistic regressions with
an L1 penalty are fitted to subsets with as many images of every group as the smallest has, the
inverse penalty C chosen by validation WGA on one subset, and the coefficients of ten subsets are
averaged. `references.dfr_penalty=l2` takes an L2 penalty.
"""

from __future__ import annotations

from raysynth.heads.spec import HeadSpec
from raysynth.references.reference import Reference, plain

PART = Reference(
    "DFR (training images)",
    "Kirichenko et al. 2023 (arXiv 2204.02937), DFR Train-Train; their code",
    plain,
    lambda config: (HeadSpec("dfr_train", penalty=config.dfr_penalty),),
)
