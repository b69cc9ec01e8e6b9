"""Strategies of decoding, which know no backend: guidance, solvers, schedules."""
