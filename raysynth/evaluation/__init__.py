"""The only reader of the test images: final classifiers, measured once."""
