"""What both backends and the harness agree on. NumPy only: neither framework is imported here."""
