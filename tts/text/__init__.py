"""Text to tokens: normalise, chunk, phones."""
