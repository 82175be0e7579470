"""Acquisition: which samples of the pool to ask people about. Tensors in, tensors out; no file, network or clock."""
