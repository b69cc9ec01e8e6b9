"""The embedded weights."""
