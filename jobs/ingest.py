"""Ray job: up to stage `ingest` (images in, the real table out)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="ingest")
