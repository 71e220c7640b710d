"""What kernels for vectors share, whatever the instruction set: shapes, walks, runs of products, packing, views."""
