"""Ray job: up to stage `references` (real-only references and controls, on test once)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="references")
