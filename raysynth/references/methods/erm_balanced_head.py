"""ERM features with a group-balanced last layer, fitted on all real training images.

The encoder is ERM's. The head is refitted to convergence on the frozen features of all real
training images, every group weighing the same; its L2 weight decay is tuned too. `dfr_train` is the
published variant, which throws images of large groups away.
"""

from __future__ import annotations

from raysynth.heads.spec import HeadSpec
from raysynth.references.reference import Reference, plain

PART = Reference(
    "ERM + balanced last layer",
    "after Kirichenko et al. 2023 (arXiv 2204.02937): weights in place of subsets",
    plain,
    lambda config: tuple(HeadSpec("balanced", decay) for decay in config.head_weight_decays),
)
