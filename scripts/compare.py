"""Compares finished runs: python scripts/compare.py; options in escnn_attn/commands/compare.py."""

from escnn_attn.commands.compare import main

if __name__ == "__main__":
    main()
