"""Ray job: up to stage `grouping` (groups found; where `grouping.method` is not `given`)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="grouping")
