"""The surfaces that people use besides the Python API: voices they keep, and batches."""
