"""Measurements of time, memory and arithmetic, which the scripts print."""

import escnn_attn  # noqa: F401  (the guards of compat, before anything imports escnn)
