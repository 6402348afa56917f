"""Compiled decoding steps: when they pay, packages for a CPU, CUDA graphs for a GPU.

They replace one function of the sampling loop, and are imported only where `compile` is not off.
"""
