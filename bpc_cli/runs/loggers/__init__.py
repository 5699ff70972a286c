"""Where else metrics go: TensorBoard's event files, and Weights & Biases."""
