"""Trains a model: python scripts/train.py model=steerable data=digits epochs=10; options in conf/train.yaml."""

from escnn_attn.training.main import train_command

if __name__ == "__main__":
    train_command()
