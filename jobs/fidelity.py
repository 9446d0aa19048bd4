"""Ray job: up to stage `fidelity` (how far the kept images are what they say)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="fidelity")
