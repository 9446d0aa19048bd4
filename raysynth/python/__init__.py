"""raysynth from Python: the same configuration, the same stages, results as tables."""
