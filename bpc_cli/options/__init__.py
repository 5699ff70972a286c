"""Every option: its type, range, unit and meaning, without JAX."""
