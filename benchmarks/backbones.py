"""Times and memory of a training step of backbones, beside a plain vision transformer and a network of escnn's convolutions."""
