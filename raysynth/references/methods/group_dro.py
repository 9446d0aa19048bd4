"""Group-DRO: an adversary weights the groups by their loss.

Minimises sum_g q_g loss_g with q_g <- q_g exp(eta loss_g), renormalised, on group-balanced
batches as in the authors' code. Strong weight decay and early stopping are part of the method:
without them the training loss of every group reaches zero and the weights stand still.
`references.dro_step_size` is eta (the authors' 0.01). Their group adjustments C / sqrt(n_g)
(section 3.3, one more number to tune) are left out, as in their code's default, C = 0.
"""

from __future__ import annotations

from raysynth.references.reference import Reference, on_real

PART = Reference(
    "Group-DRO",
    "Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1",
    lambda config, setting: (
        on_real(config, setting, sampling="balanced", dro_step_size=config.dro_step_size),
    ),
)
