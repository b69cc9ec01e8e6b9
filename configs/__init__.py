"""Whole systems and trainings as YAML: values, never code."""
