"""Tests of the library, in the folders of what they test."""

import escnn_attn  # noqa: F401  (before escnn, which cannot be imported alone without lie_learn)
