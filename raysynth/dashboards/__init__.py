"""Boards of a run in the browser: TensorBoard, optuna-dashboard, and where the others are."""
