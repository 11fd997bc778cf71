"""Measurements of time, memory and arithmetic."""
