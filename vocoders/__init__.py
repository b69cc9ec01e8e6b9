"""Vocoders: mel frames to a waveform."""
