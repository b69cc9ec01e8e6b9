"""Acoustic backends: tokens, a prompt and a plan to frames."""
