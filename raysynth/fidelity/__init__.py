"""How far synthetic images are what they say: label, likeness, spread; and what follows from it."""
