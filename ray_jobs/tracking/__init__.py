"""What is made of the metric record while a run goes on: CSV files, gauges, W&B."""
