"""Which of torch's implementations computes attention."""

from collections.abc import Callable

from torch.autograd.profiler_legacy import profile

#: operators of torch's scaled dot-product attention, and the usual names of their implementations
OPERATORS = {
    "aten::_scaled_dot_product_flash_attention": "flash",
    "aten::_scaled_dot_product_efficient_attention": "efficient",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "CPU flash",
    "aten::_scaled_dot_product_attention_math": "math",
}


def backends(step: Callable[[], object]) -> list[str]:
    """Names the implementations of scaled dot-product attention that a step calls, by a profile of one step.

    Several are named where calls differ, and none where the step does not call torch's attention.
    """
    profiler = profile()  # torch.profiler prints two lines at every start
    with profiler:
        step()
    called = {event.key for event in profiler.key_averages()}
    return [name for operator, name in OPERATORS.items() if operator in called]
