"""What stands behind `mynah batch`: what is asked for, who does it, and where it is kept."""
