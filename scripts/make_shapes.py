"""Draws a data set of shapes: python scripts/make_shapes.py folder=shapes; options in escnn_attn/commands/make_shapes.py."""

from escnn_attn.commands.make_shapes import main

if __name__ == "__main__":
    main()
