"""Equivariant modules."""
