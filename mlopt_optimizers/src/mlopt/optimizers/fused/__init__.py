"""The fused engine: whole rollouts in one compiled kernel. A thread of the CPU, or a block on CUDA, has one system."""
