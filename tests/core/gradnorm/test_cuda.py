"""The engine on a GPU: the rules by the forms that are chosen there, TF32 and autocast included."""

import logging

import pytest
import torch

from core.gradnorm import gradient_norms
from tests.core.gradnorm.slow_loop import loop
from tests.core.gradnorm.zoo import ENGINE, NETWORKS, build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def engine_only(caplog):
    caplog.set_level(logging.INFO)
    yield
    assert not [record.message for record in caplog.get_records("call")]


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize("name", ENGINE)
def test_every_parameter_equals_the_loop(name):
    model, images = build(name)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model.cuda(), images.cuda(), reduction="none")
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


@pytest.mark.usefixtures("engine_only")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_and_bfloat16(name, half):
    model, images = build(name)
    expected = loop(model, images, "entropy").sum(dim=1)
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        found = gradient_norms(model.float().cuda(), images.float().cuda())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double().cpu(), expected, rtol=5e-2 if half else 1e-2, atol=0)


@pytest.mark.usefixtures("engine_only")
def test_many_samples_take_several_chunks(monkeypatch):
    monkeypatch.setattr("core.gradnorm.engine.CUDA_CHUNK_BYTES", 2**20)
    model, _ = build("resnet18")
    images = torch.randn(64, 3, 32, 32, dtype=torch.float64, device="cuda")
    found = gradient_norms(model.cuda(), images, loss="egl")
    torch.testing.assert_close(found[:2], gradient_norms(model, images[:2], loss="egl"))
