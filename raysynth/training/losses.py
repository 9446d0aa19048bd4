"""Losses: cross-entropy with supervised contrast (stage 1) and group-DRO (a reference)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised_contrastive(features: Tensor, label: Tensor, temperature: float) -> Tensor:
    """SupCon: Khosla et al. 2020 (arXiv 2004.11362), equation 2, averaged over the anchors.

    For an anchor i with positives P(i) (same label, not i) and all others A(i):
    -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / t) / sum_{a in A(i)} exp(z_i.z_a / t) ).
    Anchors without a positive contribute nothing.

    Parameters
    ----------
    features : [B, D]; normalised to unit length here.
    label : [B] int.
    """
    z = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, float("-inf"))
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
    positive = (label[:, None] == label[None, :]) & ~itself
    count = positive.sum(dim=1)
    total = log_share.masked_fill(~positive, 0.0).sum(dim=1)
    anchors = (count > 0).sum().clamp(min=1)
    return -(total / count.clamp(min=1)).sum() / anchors


def mixed_loss(
    logits: Tensor, features: Tensor, label: Tensor, beta: float, temperature: float
) -> Tensor:
    """beta * CE + (1 - beta) * SupCon (Basu et al., arXiv 2511.08711, stage 1).

    Parameters
    ----------
    logits : [B, K]; features : [B, D]; label : [B] int.
    """
    loss = beta * F.cross_entropy(logits.float(), label) if beta > 0 else logits.new_zeros(())
    if beta < 1:
        loss = loss + (1 - beta) * supervised_contrastive(features, label, temperature)
    return loss


def generalised_cross_entropy(logits: Tensor, label: Tensor, q: float) -> Tensor:
    """[B] q p_y^q CE, the weight without gradient: what is easy is learnt the more.

    Its gradient is q times that of (1 - p_y^q) / q (Zhang and Sabuncu 2018, arXiv 1805.07836,
    equation 6), as Learning from Failure (Nam et al. 2020, arXiv 2007.02561) and DiffuBias train
    the model that is to learn the bias.

    Parameters
    ----------
    logits : [B, K]; label : [B] int; q : towards 0 cross-entropy's weights, towards 1 less of what
        is hard.
    """
    each = F.cross_entropy(logits.float(), label, reduction="none")
    return q * (-q * each.detach()).exp() * each


class GroupDRO:
    """Group-DRO's adversarial group weights (Sagawa et al. 2020, arXiv 1911.08731, algorithm 1).

    q_g <- q_g * exp(step_size * loss_g), renormalised; the loss is sum_g q_g * loss_g, where loss_g
    is the mean over the batch's images of group g (0 for groups the batch lacks).
    """

    def __init__(self, groups: int, step_size: float) -> None:
        """`groups`: number of groups G; `step_size`: the paper's eta_q (its default: 0.01)."""
        self.weights = torch.full((groups,), 1.0 / groups)
        self.step_size = step_size

    def __call__(self, logits: Tensor, label: Tensor, group: Tensor) -> Tensor:
        """Update the weights and return the robust loss of a batch; [B, K], [B], [B]."""
        each = F.cross_entropy(logits.float(), label, reduction="none")
        self.weights = self.weights.to(each.device)
        member = F.one_hot(group, len(self.weights)).to(each.dtype)
        losses = (each[:, None] * member).sum(dim=0) / member.sum(dim=0).clamp(min=1)
        weights = self.weights * torch.exp(self.step_size * losses.detach())
        self.weights = weights / weights.sum()
        return (self.weights * losses).sum()
