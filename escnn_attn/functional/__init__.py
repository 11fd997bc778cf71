"""The formulas of docs/mathematics.md on plain tensors."""
