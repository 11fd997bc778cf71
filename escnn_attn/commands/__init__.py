"""Commands beside training and evaluation: `python scripts/<name>.py`, and `escnn-attn-<name>` after installation."""
