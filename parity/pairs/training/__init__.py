"""Steps of training in float64: loss, gradients, optimiser and buffers."""
