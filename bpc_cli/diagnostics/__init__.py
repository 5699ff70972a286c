"""What the inference of a trained network does, measured and drawn."""
