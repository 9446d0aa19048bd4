"""Ray job: up to stage `selection` (who is kept, by CLIP score)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="selection")
