"""Who computes: backends by name, the oracle, planted mistakes, their environment."""
