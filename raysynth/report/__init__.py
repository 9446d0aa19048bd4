"""Report: tables, plots, contact sheets, one HTML page."""

from raysynth.report.stage import run_report

__all__ = ["run_report"]
