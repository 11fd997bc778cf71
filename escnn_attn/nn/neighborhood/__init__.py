"""Neighborhoods: which tokens a token attends to."""
