"""Speaker networks in PyTorch: log-mel front-end, trunk, pooling, and the files they load from."""
