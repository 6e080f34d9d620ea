"""The fused engine: whole rollouts in one compiled kernel, one system a thread on the CPU, one a block on CUDA."""
