"""Ray job: up to stage `audit` (what images owe to groups; where `audit.method` names one)."""

from raysynth.cli import job

if __name__ == "__main__":
    job(until="audit")
