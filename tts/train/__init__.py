"""Trainings: one recipe a file."""
