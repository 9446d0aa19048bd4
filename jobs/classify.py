"""Ray job: up to stage `classification` (the winner of the search, on test once)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="classification")
