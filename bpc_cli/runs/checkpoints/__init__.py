"""Checkpoints: their files, which of them a run keeps, and what in a header is believed."""
