"""Images, adapters and cards of a finished run as other tools read them."""

IMAGES, ADAPTERS = "images", "adapters"
"""What commands call them, beside methods."""
