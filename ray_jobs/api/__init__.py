"""What Python scripts call: `cross_validate`, and the run that it returns."""
