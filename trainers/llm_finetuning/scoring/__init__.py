"""What an answer is worth: its form, whether it is right, and what a judge says. No torch."""
