"""Where else metrics go: TensorBoard's event files, Weights & Biases, MLflow."""
