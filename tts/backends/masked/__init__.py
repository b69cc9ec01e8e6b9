"""Parallel decoding: masked codes of a codec are filled in, all frames at once, in a few passes."""
