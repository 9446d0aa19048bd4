"""raysynth: fair classifiers from biased photographs."""
