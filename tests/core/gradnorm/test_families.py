"""The networks that people use, small and on small images: exact for every parameter, and none by the slow way."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from core.gradnorm import gradient_norms
from data.torchvision_import import torchvision

# isort: split
import timm  # which imports torchvision by itself

from tests.core.gradnorm.slow_loop import loop

K = 4


def tv(name: str, side: int = 32, **options: object) -> tuple[Callable[[], nn.Module], int]:
    return partial(getattr(torchvision.models, name), num_classes=K, **options), side


def tm(name: str, side: int = 32, **options: object) -> tuple[Callable[[], nn.Module], int]:
    return partial(timm.create_model, name, num_classes=K, **options), side


def dm_nfnet() -> nn.Module:
    """Of four blocks and few channels, with what is special about it: scaled weights, a gain that starts at zero."""
    whole = timm.models.nfnet.model_cfgs["dm_nfnet_f0"]
    few = replace(whole, depths=(1, 1, 1, 1), channels=(32, 32, 64, 64), stem_chs=16, group_size=8, num_features=64)
    return timm.models.nfnet.NormFreeNet(few, num_classes=K)


def swin(second: bool) -> nn.Module:
    parts = torchvision.models.swin_transformer
    block, merging = (
        (parts.SwinTransformerBlockV2, parts.PatchMergingV2)
        if second
        else (parts.SwinTransformerBlock, parts.PatchMerging)
    )
    sizes = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return parts.SwinTransformer(**sizes, num_classes=K, block=block, downsample_layer=merging)


def convnext() -> nn.Module:
    parts = torchvision.models.convnext
    return parts.ConvNeXt([parts.CNBlockConfig(16, 32, 2), parts.CNBlockConfig(32, None, 1)], num_classes=K)


def resnet() -> nn.Module:
    return torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=K, width_per_group=8
    )


VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
THIN = {"channels": (128, 128, 128, 128), "num_classes": K}
MIXER = {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32, "num_classes": K}
RESMLP = timm.models.mlp_mixer
SMALL = {"depths": (1, 1, 1, 1), "embed_dim": (16, 32, 32, 64), "stem_width": 16}
FEW = {"depths": (2, 2), "embed_dim": 16, "num_heads": (2, 4)}
FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": tv("resnet50"),
    "efficientnet_b0": tv("efficientnet_b0"),
    "convnext_tiny": tv("convnext_tiny"),
    "mobilenet_v3_small": tv("mobilenet_v3_small"),
    "mobilenet_v3_large": tv("mobilenet_v3_large"),
    "densenet121": tv("densenet121"),
    "shufflenet_v2": tv("shufflenet_v2_x0_5"),
    "swin_t": tv("swin_t", 64),
    "resnet50, small": (resnet, 32),
    "convnext_tiny, small": (convnext, 32),
    "swin_t, small": (partial(swin, second=False), 32),
    "swin_v2_t, small": (partial(swin, second=True), 32),
    "vit_b_16, small": (partial(torchvision.models.VisionTransformer, num_classes=K, **VIT), 32),
    "regnet_y": tv("regnet_y_400mf"),
    "timm nfnet, dm": (dm_nfnet, 64),
    "timm nf_regnet": tm("nf_regnet_b0", 64),
    "timm resnetv2, with standardised weights": (partial(timm.models.ResNetV2, (1, 1, 1, 1), **THIN, stem_chs=32), 64),
    "timm coatnet": tm("coatnet_pico_rw_224", 64, img_size=64, **SMALL),
    "timm coatnet rmlp": tm("coatnet_rmlp_nano_rw_224", 64, img_size=64, **SMALL),
    "timm maxvit": tm("maxvit_rmlp_pico_rw_256", 64, img_size=64, **{**SMALL, "embed_dim": (32, 32, 64, 64)}),
    "timm convnext": tm("convnext_atto"),
    "timm convnextv2": tm("convnextv2_atto"),
    "timm swin": tm("swin_tiny_patch4_window7_224", 32, img_size=32, window_size=4, **FEW),
    "timm swinv2": tm("swinv2_tiny_window8_256", 32, img_size=32, window_size=4, **FEW),
    "timm mobilenetv3": tm("mobilenetv3_small_050"),
    "timm regnetx": tm("regnetx_002"),
    "timm regnety": tm("regnety_002"),
    "timm vit": tm("vit_tiny_patch16_224", 32, img_size=32, patch_size=8, depth=2),
    "timm vit with registers": tm("vit_small_patch14_reg4_dinov2", 28, img_size=28, depth=2),
    "timm deit": tm("deit_tiny_distilled_patch16_224", 32, img_size=32, patch_size=8, depth=2),
    "timm beit": tm("beit_base_patch16_224", 32, img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3),
    "timm cait": tm("cait_xxs24_224", 32, img_size=32, patch_size=8, depth=2),
    "timm xcit": tm("xcit_nano_12_p8_224", 32, img_size=32, depth=2),
    "timm mixer": (partial(timm.models.MlpMixer, **MIXER), 32),
    "timm resmlp": (
        partial(timm.models.MlpMixer, **MIXER, mlp_ratio=4, block_layer=RESMLP.ResBlock, norm_layer=RESMLP.Affine),
        32,
    ),
    "timm metaformer": (partial(timm.models.MetaFormer, depths=(1, 1, 1, 1), dims=(16, 32, 32, 64), num_classes=K), 32),
    "timm mobilevit": tm("mobilevit_xxs", 64),
    "timm ghostnet": tm("ghostnet_050"),
}

# Which take long because they are whole; the same layers are in a smaller one
WHOLE = {
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "swin_t",
    "densenet121",
    "mobilenet_v3_large",
    "timm nf_regnet",
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """The network in float64 and three images; batch normalisation knows statistics, and no parameter is zero."""
    torch.manual_seed(0)
    make, side = FAMILIES[name]
    model = make().train()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model(torch.randn(6, 3, side, side))
        spread = model.eval()(torch.randn(6, 3, side, side)).std()
        *_, head = (module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
        head.weight /= spread  # or a softmax could be sure of itself, with no gradient left to compare
    return model.double().eval(), torch.randn(3, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in WHOLE)) for name in FAMILIES])
def test_all_exact_by_rule(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, images = made(name)
    expected = loop(model, images, "entropy")
    found = gradient_norms(model, images, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.max()))
    assert float(expected.min(dim=0).values.median()) > 0, "gradients that are no mere zeros"
    assert not caplog.messages, "no parameter fell to the slow way"
