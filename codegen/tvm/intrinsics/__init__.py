"""Tensor intrinsics: what a vector of products, a row of taps or a block of tiles is computed by."""
