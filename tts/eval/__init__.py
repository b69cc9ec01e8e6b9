"""Measuring: intelligibility, likeness, quality, speed."""
