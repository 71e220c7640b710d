"""The C back end: kernels, and the emitter that turns an integer graph into C sources."""
