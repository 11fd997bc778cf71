"""Evaluates a checkpoint on test sets: python scripts/evaluate.py checkpoint=….ckpt; options in conf/evaluate.yaml."""

from escnn_attn.training.main import evaluate_command

if __name__ == "__main__":
    evaluate_command()
