"""Ray job: up to stage `clustering` (CLIP embeddings, k-means per group)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="clustering")
