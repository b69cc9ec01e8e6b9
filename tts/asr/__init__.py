"""The phone recognizer: posteriors, alignment, and the check of what was said."""
