"""Autoregression over the codes of a codec."""
