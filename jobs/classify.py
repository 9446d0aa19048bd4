"""Ray job: up to stage `classification` (the references and the winner, on test once)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="classification")
