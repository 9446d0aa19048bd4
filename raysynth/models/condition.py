"""What a denoiser is told besides the noisy image: rows of named tensors.

Stable Diffusion's are the text encoder's states; other families add pooled states, image sizes or
a second encoder's. Whoever trains or draws moves rows about and never looks inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """S rows of what a family's network is conditioned on."""

    tensors: Mapping[str, Tensor]
    """Name -> [S, ...]; all of one S."""

    def __post_init__(self) -> None:
        lengths = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Condition: got rows {lengths}, expected as many of every tensor")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        """[S, ...] the tensor of a name."""
        return self.tensors[name]

    def rows(self) -> Iterator[Condition]:
        """Every row by itself."""
        return (self.take([row]) for row in range(len(self)))

    def take(self, rows: Tensor | Sequence[int]) -> Condition:
        """The rows of these numbers, [B] int; a row may repeat."""
        return Condition({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Condition:
        """On a device; numbers that are not whole in a precision."""
        return Condition(
            {
                name: tensor.to(device, dtype if tensor.is_floating_point() else None)
                for name, tensor in self.tensors.items()
            }
        )

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """The rows of all parts, in order; states of shorter prompts end in zeros."""
        return Condition({name: _cat([part[name] for part in parts]) for name in parts[0].tensors})


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    longest = max(tensor.shape[1:2] for tensor in tensors)
    if all(tensor.shape[1:2] == longest for tensor in tensors):
        return torch.cat(list(tensors))
    (length,) = longest
    grown = []
    for tensor in tensors:
        missing = tensor.new_zeros(len(tensor), length - tensor.shape[1], *tensor.shape[2:])
        grown.append(torch.cat([tensor, missing], 1))
    return torch.cat(grown)
