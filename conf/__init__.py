"""Hydra configuration of the training system."""
