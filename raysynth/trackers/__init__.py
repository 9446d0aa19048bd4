"""Trackers: where a run tells, while it goes, what its stages found."""
