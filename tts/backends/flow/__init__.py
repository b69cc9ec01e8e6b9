"""Conditional flow matching."""
