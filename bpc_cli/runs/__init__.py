"""What a training run does and leaves on disk."""
