"""Exports the weights of a finished run: python scripts/publish.py; options in escnn_attn/commands/publish.py."""

from escnn_attn.commands.publish import main

if __name__ == "__main__":
    main()
