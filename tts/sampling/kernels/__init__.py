"""Triton kernels of sampling. Its files import Triton at once, so tts/sampling/fused.py imports them when it launches one."""
