"""Ray Tune over the synthetic ratio and the hyperparameters."""
