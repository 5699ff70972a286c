"""Runs read back, compared and shown on one page, without JAX."""
