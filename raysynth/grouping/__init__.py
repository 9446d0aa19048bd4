"""Which group an image is in, where another rule than the data set's says so."""
