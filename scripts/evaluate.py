"""Evaluates a checkpoint on upright and rotated test sets: `python scripts/evaluate.py checkpoint=….ckpt`."""

from escnn_attn.training.run import evaluate_command

if __name__ == "__main__":
    evaluate_command()
