"""Public checkpoints: a file for each family, which says how its weights are named here."""
