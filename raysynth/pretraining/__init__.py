"""A base of one's own: images of a data set into an autoencoder, a CLIP and a denoiser."""
