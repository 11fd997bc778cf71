"""Comparison of finished runs, pictures, attention maps and measured equivariance."""
