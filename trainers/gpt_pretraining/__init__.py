"""GPT pre-training: a decoder learns the next token of documents, and says the loss of each of their tokens."""
