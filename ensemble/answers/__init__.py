"""Predictions that are answers to questions: text, the answer in it, whether it is right."""
