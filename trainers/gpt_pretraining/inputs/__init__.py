"""What of the tokens the model sees in an epoch, and in a document that is scored."""
