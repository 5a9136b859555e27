"""Predictions that are the loss of each token of a document."""
