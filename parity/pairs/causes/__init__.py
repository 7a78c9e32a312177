"""The catalogue of causes: one entry one mistake, by what it is made in."""
