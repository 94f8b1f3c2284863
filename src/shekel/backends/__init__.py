"""Where the vocabulary keeps ledgers that processes share."""
