"""Pretraining of the tiny base on the Fashion-MNIST garments that outfits does not contain."""
