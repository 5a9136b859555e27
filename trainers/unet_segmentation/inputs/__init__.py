"""What a model gets of the pictures."""
