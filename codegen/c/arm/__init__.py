"""The C back end's kernels for 64-bit ARM: products with int8 weights by SDOT (dotprod) and SMMLA (i8mm)."""
