"""Ray job: up to stage `synthesis` (candidate images with their scores)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="synthesis")
