"""What families share while they learn: epochs, batches, arithmetic, the optimiser's state, sections of their
configs."""
