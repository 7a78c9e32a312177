"""Trust: mistakes planted into JAX's program, and what a proof sees of them."""
