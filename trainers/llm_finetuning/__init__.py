"""Supervised and GRPO fine-tuning of a language model with LoRA: a question → a checked answer."""
