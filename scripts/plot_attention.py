"""Draws attention and a field on a rotating digit: python scripts/plot_attention.py; options in escnn_attn/commands/plot_attention.py."""

from escnn_attn.commands.plot_attention import main

if __name__ == "__main__":
    main()
