"""Scoring, comparing and drawing generative models of rows: losses at fixed times and noise, and what they make."""
