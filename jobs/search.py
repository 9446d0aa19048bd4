"""Ray job: up to stage `search` (Ray Tune over the synthetic ratio and the hyperparameters)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="search")
