"""The model, its loss, and what it says of whole pictures."""
