"""The model: encoders, heads, loss."""
