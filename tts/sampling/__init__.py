"""Randomness: counter-based noise and the sampling of codes."""
