"""A base model's sizes: of its latents, its images and its prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raysynth.sides import Size, sides_of


@dataclass(frozen=True)
class Shape:
    """A base model's sizes, as its configuration files say them."""

    latents: tuple[int, int, int]
    """Channels, height and width of its own latents."""
    factor: int
    """Pixels per latent position."""
    tokens: int
    """Length of a prompt, at most, and of its text states."""
    zeros: bool = False
    """An empty prompt is told as zeros instead of what its encoders say of it."""
    grain: int = 1
    """What sides of latents are multiples of, so that the network halves or tiles them evenly."""

    @property
    def side(self) -> int:
        """Side of its own images, pixels."""
        return self.latents[1] * self.factor

    @property
    def positions(self) -> int:
        """Of its latents."""
        return self.latents[1] * self.latents[2]

    def of(self, size: Size | None) -> Shape:
        """The same for images of a size; None: as it is."""
        return self if size is None else self.at(*sides_of(size))

    @property
    def unit(self) -> int:
        """Pixels that sides of images are multiples of: `grain`."""
        return self.grain * self.factor

    def at(self, height: int, width: int) -> Shape:
        """The same for images of a height and width in pixels."""
        return replace(self, latents=(self.latents[0], height // self.factor, width // self.factor))
