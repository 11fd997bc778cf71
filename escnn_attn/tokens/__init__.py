"""Where tokens are, and what features they have."""
