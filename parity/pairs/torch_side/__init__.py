"""PyTorch's side of a pair: its model, each operation as it is made, and both as a file."""
