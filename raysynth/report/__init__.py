"""Report: tables, plots, contact sheets, one HTML page."""
