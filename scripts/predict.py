"""Predicts the classes of images: python scripts/predict.py checkpoint=….ckpt images/…; options in escnn_attn/commands/predict.py."""

from escnn_attn.commands.predict import main

if __name__ == "__main__":
    main()
