"""Layers that siblings share."""
