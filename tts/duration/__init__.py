"""How long a text takes."""
