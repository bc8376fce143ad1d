"""The model: architectures, kernel algebra, the block, the backbone."""
