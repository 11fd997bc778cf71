"""Comparison of finished runs, figures, attention maps and measured equivariance. Needs the extra `train`."""

from escnn_attn.analysis.attention_maps import AttentionMap, attention_map
from escnn_attn.analysis.comparison import as_markdown, compare_runs
from escnn_attn.analysis.equivariance import ConvolutionalNetwork, attention_errors, error_by_angle, smooth_image
from escnn_attn.analysis.plots import (
    draw_attention,
    plot_accuracy_by_angle,
    plot_growth,
    plot_sample_efficiency,
    plot_trajectories,
    save_figure,
)
from escnn_attn.analysis.report import ComparisonReport, describe, report
from escnn_attn.analysis.rotation import ANGLES, accuracy_by_angle

__all__ = [
    "ANGLES",
    "AttentionMap",
    "ComparisonReport",
    "ConvolutionalNetwork",
    "accuracy_by_angle",
    "as_markdown",
    "attention_errors",
    "attention_map",
    "compare_runs",
    "describe",
    "draw_attention",
    "error_by_angle",
    "plot_accuracy_by_angle",
    "plot_growth",
    "plot_sample_efficiency",
    "plot_trajectories",
    "report",
    "save_figure",
    "smooth_image",
]
