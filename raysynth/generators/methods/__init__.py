"""The generators, one file each; see `raysynth.generators.generator`."""
