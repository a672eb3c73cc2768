"""Training: pure functions of state and batch. Knows a network only as an `nn.Module`."""
