"""The TVM back end: integer ops as TE computes and schedules, compiled by TVM's LLVM to assembler with a plain C ABI.

Everything else is shared with the C back end: these kernels are rows of its table, and a layer may come from either."""
