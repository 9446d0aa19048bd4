"""How much of a data set an embedding actor holds at once, in pixels and bytes: photographs differ.

Imports nothing, so that a plan can count with it.
"""

PIXELS_AT_ONCE = 2**22
"""Pixels that are held as they are; models see little of a large photograph."""
BYTES_AT_ONCE = 2**30
"""Encoded images of a batch, bytes: `clustering.batch_size` photographs of 4 MiB."""


def rows_at_once(most: int, encoded: float) -> int:
    """Images of a batch, at most `most`, that are `encoded` bytes large on average."""
    return max(1, min(most, int(BYTES_AT_ONCE / max(encoded, 1.0))))


def images_at_once(width: int, height: int) -> int:
    """Images of one size that are decoded at once."""
    return max(1, PIXELS_AT_ONCE // (width * height))
