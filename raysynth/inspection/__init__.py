"""`raysynth audit`: what a data set's bias does, before anything is generated."""
