"""Ways to combine numbers: by rule, by fitted weights, by greedy selection."""
