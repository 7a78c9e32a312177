"""What rounding explains: stochastic arithmetic on both sides, and float32 judged by it."""
