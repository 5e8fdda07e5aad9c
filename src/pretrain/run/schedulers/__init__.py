"""A file for each scheduler that `pretrain launch` writes jobs for."""
