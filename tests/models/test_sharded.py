"""Blocks sharded over processes, each a unit of its own."""

import copy
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from escnn_attn import SteerableStack, fourier_type, planar_gspace, steerable_block


def gradients_agree(rank: int, port: int) -> None:
    """In each of two processes: sharded layer by layer, a stack has the gradients of a whole one."""
    from torch.distributed.fsdp import fully_shard

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    t = fourier_type(planar_gspace("SO2"), 4, 2)
    whole = SteerableStack([steerable_block(t, num_heads=2) for _ in range(2)])
    sharded, x = copy.deepcopy(whole), t(torch.randn(2, t.size, 7, 7))
    mesh = init_device_mesh("cpu", (2,))
    for layer in (*sharded.layers, sharded):
        fully_shard(layer, mesh=mesh)
    for stack in (whole, sharded):
        stack(x).tensor.square().sum().backward()
    for one, part in zip(whole.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(part.grad.full_tensor(), one.grad, rtol=1e-4, atol=1e-4)
    dist.destroy_process_group()


@pytest.mark.slow
def test_fully_sharded_layers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(gradients_agree, (port,), nprocs=2)
