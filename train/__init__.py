"""Training: recordings and speaker labels in, a checkpoint out."""
