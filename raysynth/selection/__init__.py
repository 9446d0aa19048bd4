"""Which generated images are kept, and whose: scores, copies, validation."""
