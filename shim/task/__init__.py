"""The task API of containerd: containers, their processes, and what clients may ask of them."""
