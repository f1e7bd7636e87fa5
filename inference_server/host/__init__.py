"""The machine and this process on it: CPUs, memory and heat, and what of the process is stuck."""
