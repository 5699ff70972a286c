"""What networks are worth: metrics, and the tests that measure them."""
