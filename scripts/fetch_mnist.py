"""Fetches MNIST into the cache: python scripts/fetch_mnist.py; options in escnn_attn/commands/fetch_mnist.py."""

from escnn_attn.commands.fetch_mnist import main

if __name__ == "__main__":
    main()
