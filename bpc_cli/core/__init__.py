"""The models: layers, energy, inference and learning; JAX, Equinox and Optax alone."""
