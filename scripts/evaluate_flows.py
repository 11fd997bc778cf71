"""Evaluates predictions of flows: python scripts/evaluate_flows.py; options in escnn_attn/commands/evaluate_flows.py."""

from escnn_attn.commands.evaluate_flows import main

if __name__ == "__main__":
    main()
