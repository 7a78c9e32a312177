"""Both sides layer by layer in float64: every difference located, and its cause looked for."""
