"""What is fast where. Each file has a plain function, a fast one, and one predicate between them.

Models call these functions and never ask for a device, a compiler or a processor. The environment
variable `DALLE_KERNELS=plain` takes the plain function everywhere.
"""
