"""What a text encoder costs where its attention is adapted and prompts are read at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysynth.planning.network_cost import UNetCost

KEPT = 16
"""Numbers as wide as the states that a layer keeps for each token, besides the feed-forward's two:
what two normalisations, four projections, attention and two sums are given."""
BYTES = 2


def with_texts(
    cost: UNetCost, texts: Sequence[Mapping[str, Any]], tokens: int, rank: int
) -> UNetCost:
    """As `with_text`, of all text encoders of a base."""
    for text in texts:
        cost = with_text(cost, text, tokens, rank)
    return cost


def weights_of(text: Mapping[str, Any]) -> int:
    """Numbers in the products of an encoder's layers."""
    width, inner = int(text["hidden_size"]), int(text["intermediate_size"])
    return int(text["num_hidden_layers"]) * (4 * width**2 + 2 * width * inner)


def with_text(cost: UNetCost, text: Mapping[str, Any], tokens: int, rank: int) -> UNetCost:
    """The cost of a network with that of its text encoder, one prompt for each image.

    A transformer (Vaswani et al. 2017) of width d, inner width f, L tokens: 4 d^2 + 2 d f numbers
    in the products of a layer, 2 L^2 d products of attention; gradients of the states alone, since
    the weights are frozen, cost as much as the forward pass. (Left out: what the network's own keys
    and values of the states cost more, now that these have a gradient.)

    Parameters
    ----------
    text : transformers' configuration of the encoder.
    rank : of the adapters on its four projections of attention; 0: none is trained.
    """
    width, inner = int(text["hidden_size"]), int(text["intermediate_size"])
    layers = int(text["num_hidden_layers"])
    weights = weights_of(text)
    adapters = layers * 4 * 2 * width * rank
    attention = layers * 2 * 2 * tokens**2 * width
    forward = 2.0 * tokens * (weights + adapters) + attention
    kept = layers * tokens * (KEPT * width + 2 * inner) * BYTES
    return replace(
        cost,
        parameters=cost.parameters + weights,
        trained=cost.trained + adapters,
        forward=cost.forward + forward,
        training=cost.training + 2 * forward + 2.0 * tokens * adapters + attention,
        activations=cost.activations + kept,
    )
