"""Runs read back, compared and drawn, without JAX."""
