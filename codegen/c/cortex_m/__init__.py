"""The C back end's kernels for Cortex-M: products by SMLAD (DSP extension) and by vectors of bytes (Helium MVE)."""
