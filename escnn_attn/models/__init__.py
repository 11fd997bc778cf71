"""Blocks, stems and whole networks."""
