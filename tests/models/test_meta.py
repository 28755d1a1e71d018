"""Networks and optimizers of which only shapes and settings matter: the same ones, without torch's compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from ferhpo.models.meta import uncompiled_optimizers, without_weights

DRAWS = [
    "normal_", "xavier_normal_", "kaiming_normal_", "trunc_normal_", "orthogonal_", "uniform_", "xavier_uniform_",
    "kaiming_uniform_", "zeros_", "ones_",
]  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_every_way_to_initialize_leaves_a_tensor_without_numbers(name):
    with without_weights():
        tensor = torch.empty(4, 6)
        assert getattr(nn.init, name)(tensor) is tensor
    assert tensor.is_meta
    assert tensor.shape == (4, 6)


def test_what_is_on_the_cpu_is_initialized_as_ever():
    weight = torch.zeros(4, 6)
    with without_weights():
        nn.init.normal_(weight)
        weight.exponential_()
    assert (weight > 0).all()


def test_a_check_does_not_import_the_compiler():
    code = (
        "import sys, ferhpo; ferhpo.check('demo'); ferhpo.check('demo', ['optim=adam']);"
        "assert 'torch.nn' in sys.modules; assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_optimizer_refuses_what_it_refuses_and_later_ones_are_as_ever():
    parameters = [nn.Parameter(torch.zeros(1))]
    with uncompiled_optimizers(), pytest.raises(ValueError, match="learning rate"):
        torch.optim.SGD(parameters, lr=-1.0)
    assert not hasattr(torch.optim.Optimizer.add_param_group.__wrapped__, "__dynamo_disable") or (
        torch.optim.Optimizer.add_param_group.__wrapped__.__dynamo_disable
        is not torch.optim.Optimizer.add_param_group.__wrapped__
    )
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    parameters[0].grad = torch.ones(1)
    optimizer.step()
    assert parameters[0].item() == -1
