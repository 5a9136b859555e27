"""What a model gets of the rows: numbers, decoded pictures, features of frozen encoders."""
