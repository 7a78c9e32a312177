"""JAX's side of a pair: its model, the computation as a jaxpr, and what is read from it."""
