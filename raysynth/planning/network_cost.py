"""What a network costs, see `denoiser_cost`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UNetCost:
    """Of one image, in the precision of two bytes per number."""

    parameters: int
    trained: int
    """Parameters of one adapter; all of them for a full fine-tuning."""
    forward: float
    """FLOPs of a forward pass (a multiplication and an addition count as two)."""
    training: float
    """FLOPs of a training step: forward, backward and, with checkpointing, forward again."""
    activations: float
    """Bytes that one image keeps for the backward pass, at their most."""
