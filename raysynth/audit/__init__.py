"""Which group's training images a generated image owes what."""
