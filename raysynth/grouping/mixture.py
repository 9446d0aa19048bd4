"""How a diffusion model is trained on images of which it is not known what they show; pure numbers.

After DMIS (Wu et al. 2025, arXiv 2510.03016): an image of unknown attribute is learnt under the
mixture of what the model says under each, weighed by how likely the model itself finds it. The gate
and the choice of a temperature are ours.

Shapes: H images of unknown attribute, N of a known one, A attributes, [C, h, w] latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raysynth.groups.balance import image_weights

TEMPERATURES = tuple(0.0005 * 2**k for k in range(8))
"""What mean errors are divided by, to be chosen from."""


def elbo_temperature(size: int) -> float:
    """2 / size of a latent: a mean error over it is -2 / size times the lower bound's own term."""
    return 2 / size


def mixture_losses(
    said: Tensor, plain: Tensor, target: Tensor, posterior: Tensor, sure: Tensor
) -> Tensor:
    """[H] squared errors of the mixture, or of the prompt without attribute where that is unsure.

    ||sum_a p_a h_a - target||^2 (DMIS, equation 6), with gradients through every h_a.

    Parameters
    ----------
    said : [H, A, C, h, w] predictions under each attribute; plain : [H, C, h, w] under none.
    posterior : [H, A] without gradient; sure : [H] bool.
    """
    mixed = (posterior[:, :, None, None, None] * said).sum(1)
    chosen = torch.where(sure[:, None, None, None], mixed, plain)
    return (chosen - target).square().flatten(1).mean(1)


def classification_losses(
    said: Tensor, target: Tensor, posterior: Tensor, temperature: float, sure: Tensor
) -> Tensor:
    """[H] cross-entropy of what the errors say against the posterior (DMIS' L_Cls, equation 7).

    0 where that is unsure. Parameters as of `mixture_losses`.
    """
    errors = (said - target[:, None]).square().flatten(2).mean(2)
    spread = -(posterior * (-errors / temperature).log_softmax(1)).sum(1)
    return torch.where(sure, spread, 0.0)


def likeliest_temperature(errors: Tensor, attribute: Tensor, group: Tensor) -> float:
    """Of TEMPERATURES the one under which known attributes are likeliest, every group alike.

    Parameters
    ----------
    errors : [N, A] mean errors; attribute : [N] the true ones; group : [N].
    """
    rows = torch.arange(len(errors))
    weight = torch.from_numpy(image_weights(group.numpy(), "balanced"))

    def likelihood(temperature: float) -> float:
        return float((weight * (-errors / temperature).log_softmax(1)[rows, attribute]).sum())

    return max(TEMPERATURES, key=likelihood)
