"""Which subject is how fast."""
