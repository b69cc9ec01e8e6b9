"""What stands behind `mynah serve`: who may come, who is served when, and how speech becomes an answer."""
