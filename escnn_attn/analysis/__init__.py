"""Comparison of finished runs, figures, attention maps and measured equivariance. Needs the extra `train`."""

from escnn_attn.analysis.attention_maps import attention_map
from escnn_attn.analysis.classes import class_table, plot_confusion, plot_examples
from escnn_attn.analysis.comparison import as_markdown, compare_runs, means_as_markdown
from escnn_attn.analysis.equivariance import error_by_angle
from escnn_attn.analysis.flow_plots import animate_vorticity, plot_energy_spectra, plot_rollout_errors
from escnn_attn.analysis.flows import flow_errors, relative_errors, rollout, turning_error
from escnn_attn.analysis.plots import plot_accuracy_by_angle, plot_sample_efficiency, plot_trajectories
from escnn_attn.analysis.report import ComparisonReport, describe, report
from escnn_attn.analysis.rotation import accuracy_by_angle
from escnn_attn.analysis.runs import Runs, read_runs

__all__ = [
    "ComparisonReport",
    "Runs",
    "accuracy_by_angle",
    "animate_vorticity",
    "as_markdown",
    "attention_map",
    "class_table",
    "compare_runs",
    "describe",
    "error_by_angle",
    "flow_errors",
    "means_as_markdown",
    "plot_accuracy_by_angle",
    "plot_confusion",
    "plot_energy_spectra",
    "plot_examples",
    "plot_rollout_errors",
    "plot_sample_efficiency",
    "plot_trajectories",
    "read_runs",
    "relative_errors",
    "report",
    "rollout",
    "turning_error",
]
