"""The training of a fold, its validation, and the pictures that it makes at its end."""
