"""Codecs: frames of sound to discrete codes and back."""
