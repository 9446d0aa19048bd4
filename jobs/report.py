"""Ray job: up to stage `report` (tables, plots, contact sheets, one page)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="report")
