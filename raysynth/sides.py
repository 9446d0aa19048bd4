"""Sizes of images, in pixels."""

from __future__ import annotations

Sides = tuple[int, int]
"""Height and width of an image, pixels."""
Size = int | Sides
"""Of images, pixels: the side of a square, or height and width."""


def sides_of(size: Size) -> Sides:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else size
