"""Searching for good values of options with Optuna, a job for each trial."""
