"""The map of the weights: which leaf of one side holds what which leaf of the other holds."""
