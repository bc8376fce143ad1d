"""The families of docs/any-model.md: whole networks, one row each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import nn

from mmrepvgg.benchmark.official import OfficialRepVGG
from mmrepvgg.models.archs import ARCHS, Arch

from . import blocks, official


@dataclass(frozen=True)
class Family:
    """A network in two sizes.

    Attributes:
        name: The network's name.
        source: Whose code it is.
        build: Function that makes it, with random weights.
        build_small: Function that makes a smaller one for tests, with blocks of all kinds.
        convs: Number of convolutions of the smaller one, fused.
        norms: Number of its batch norms that stay.
        why: Why they stay.
        image: Height and width of its images in pixels.
        timm: Name of timm's model, if it is one.
        package: The package that has its code, if that is a package of its own.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    build_small: Callable[[], nn.Module]
    convs: int
    norms: int = 0
    why: str = ''
    image: int = 64
    timm: str = ''
    package: str = ''

    @property
    def is_there(self) -> bool:
        """Whether its package is installed, and the installed version of timm has it."""
        if self.package and find_spec(self.package) is None:
            return False
        if not self.timm:
            return True
        import timm

        return timm.is_model(self.timm)


def _create(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, **options)


def _timm(title: str, name: str, convs: int, small: dict[str, Any], **options: Any) -> Family:
    return Family(title, 'timm', partial(_create, name), lambda: _create(name, **small), convs, timm=name, **options)


def _timm_shortened(title: str, name: str, convs: int, **options: Any) -> Family:
    """Of each stage, the smaller one has the first block."""

    def build_small() -> nn.Module:
        model: Any = _create(name)
        for stage in model.blocks:
            del stage[1:]
        return model

    return Family(title, 'timm', partial(_create, name), build_small, convs, timm=name, **options)


def _ghost(title: str, name: str, kind: str, convs: int, **options: Any) -> Family:
    def build_small() -> nn.Module:
        from timm.models import ghostnet, repghost

        # kernel size, width within, width, part of SE, stride
        stages = [[[3, 16, 16, 0, 1]], [[3, 48, 24, 0, 2]], [[5, 72, 40, 0.25, 2], [5, 120, 40, 0.25, 1]]]
        return {**vars(ghostnet), **vars(repghost)}[kind](stages, **options)

    return Family(title, 'timm', partial(_create, name), build_small, convs, timm=name)


def _byobnet(title: str, name: str, convs: int, depth: int = 2, **options: Any) -> Family:
    """A network of timm's byobnet.py, which reads the numbers of its blocks from tables."""

    def shorten(block: Any) -> Any:
        if isinstance(block, Sequence):
            return tuple(map(shorten, block[:depth]))
        return replace(block, d=min(block.d, depth), c=int(block.c) // 4)

    def build_small() -> nn.Module:
        from timm.models.byobnet import model_cfgs

        return _create(name, blocks=tuple(map(shorten, model_cfgs[name].blocks)), stem_chs=16)

    return Family(title, 'timm', partial(_create, name), build_small, convs, timm=name, **options)


def _mmpretrain(
    title: str, kind: str, options: dict[str, Any], convs: int, small: dict[str, Any], **more: Any
) -> Family:
    def build(options: dict[str, Any]) -> nn.Module:
        from mmpretrain.models import backbones

        return getattr(backbones, kind)(**options)

    return Family(title, 'mmpretrain', partial(build, options), partial(build, small), convs, **more)


def _segmentation(title: str, encoder: str, convs: int, small: dict[str, Any], **more: Any) -> Family:
    def build(**options: Any) -> nn.Module:
        from segmentation_models_pytorch import create_model

        return create_model('Unet', encoder, encoder_weights=None, classes=2, **options)

    package = 'segmentation_models_pytorch'
    return Family(title, package, build, partial(build, **small), convs, package=package, **more)


def _as_authors(
    title: str, network: Callable[..., nn.Module], arch: str, convs: int, small: Arch, **options: Any
) -> Family:
    return Family(title, 'as the authors', partial(network, ARCHS[arch]), partial(network, small), convs, **options)


def _stack(title: str, block: Callable[..., nn.Module], convs: int, **options: Any) -> Family:
    """Eight blocks, with 64 to 512 channels."""
    build = partial(blocks.stack, block, (64, 128, 256, 512))
    return Family(title, 'written here', build, partial(blocks.stack, block, (8, 12, 16)), convs, image=32, **options)


_SMALL_RATIOS = (0.25, 0.125, 0.0625, 0.046875)
_SMALL = Arch((1, 2, 1, 1), _SMALL_RATIOS, {2: 2})
_SMALL_SE = replace(_SMALL, se_cfg=dict(ratio=4, divisor=1))


def _list_families() -> Iterator[Family]:
    # timm has a method of its own for these
    yield _byobnet('RepVGG-A0', 'repvgg_a0', 8)
    yield _byobnet('MobileOne-S0', 'mobileone_s0', 9)
    yield _byobnet('MobileOne-S4 (SE)', 'mobileone_s4', 13)
    yield _timm('FastViT-T8', 'fastvit_t8', 28, dict(layers=(1, 1, 1, 1), embed_dims=(16, 32, 64, 64)))
    small: dict[str, Any] = dict(layers=(1, 1, 1, 1), embed_dims=(16, 32, 64, 64))
    why = 'it stands before attention, which reshapes its input'
    yield _timm('FastViT-SA12', 'fastvit_sa12', 28, small, norms=1, why=why)
    yield _timm('RepViT-M0.9', 'repvit_m0_9', 46, dict(depth=(1, 1, 2, 1), embed_dim=(16, 24, 32, 48)))
    yield _ghost('RepGhostNet-0.5', 'repghostnet_050', 'RepGhostNet', 29)
    yield _ghost('GhostNetV3-0.5', 'ghostnetv3_050', 'GhostNet', 34, version='v3')
    yield _timm('PP-LCNetV2', 'lcnetv2_small', 15, dict(scale=0.25, depths=(1, 1, 1, 1)))
    # timm's default has two heads, whose sum a public method computes: they stay
    levit = partial(_create, 'levit_128s', distilled=False)
    yield Family('LeViT-128S', 'timm', levit, partial(levit, img_size=64, depth=(1, 1, 1)), 4, timm='levit_128s')
    small = dict(embed_dim=(16, 32, 32), depth=(1, 1, 1), num_heads=(2, 2, 2))
    yield _timm('EfficientViT-M0 (MSRA)', 'efficientvit_m0', 59, dict(img_size=128, **small), image=128)
    yield _timm('EfficientViM-M1', 'efficientvim_m1', 42, dict(embed_dim=(16, 32, 32), depths=(1, 1, 1)))
    small = dict(depth=(1, 1, 1), embed_dim=(32, 48, 64), partial_dim=(16, 16, 16))
    yield _timm('SHViT-S1', 'shvit_s1', 39, small)
    small = dict(depths=(1, 1, 1, 1), embed_dims=(16, 32, 32, 32), num_heads=(1, 1, 1, 1), window_sizes=(4, 4, 4, 2))
    yield _timm('TinyViT-5M', 'tiny_vit_5m_224', 17, small)
    why = 'they stand before attention and concatenations, and behind shortcuts'
    yield _timm('Next-ViT-S', 'nextvit_small', 43, dict(depths=(1, 1, 5, 1)), norms=6, why=why)
    small = dict(dims=(16, 16, 48, 64), depths=(1, 1, 3, 3), attn_groups=(0, 0, 1, 1))
    yield _timm('iFormer-T', 'iformer_t', 25, small)
    # and none for these
    yield _timm('ResNet-18', 'resnet18', 13, dict(layers=(1, 1, 1, 1), channels=(8, 16, 16, 32), stem_width=8))
    yield _timm_shortened('MobileNetV3-S', 'mobilenetv3_small_050', 25)
    yield _timm_shortened('EfficientNet-B0', 'efficientnet_b0', 36)
    yield _timm_shortened('PP-LCNet', 'lcnet_050', 16)
    yield _timm('PP-HGNetV2-B0', 'hgnetv2_b0', 43, {})
    yield _byobnet('GENet-S', 'gernet_s', 20, depth=1)
    why = 'they stand before activations'
    yield _timm('DenseNet-121', 'densenet121', 12, dict(growth_rate=8, block_config=(1, 1, 1, 1)), norms=8, why=why)
    # mmpretrain
    options: dict[str, Any] = dict(out_indices=(1, 3), se_cfg=dict(ratio=4))
    arch: dict[str, Any] = dict(num_blocks=[1, 2, 1, 1], width_factor=list(_SMALL_RATIOS))
    yield _mmpretrain(
        'MobileOne-S4 (SE)',
        'MobileOne',
        dict(arch='s4'),
        19,
        dict(arch=arch | dict(num_conv_branches=[4, 2, 1, 1], num_se_blocks=[0, 0, 1, 1]), **options),
    )
    arch |= dict(group_layer_map={2: 2}, se_cfg=dict(ratio=4, divisor=1), stem_channels=16)
    # the layers of D2se, fewer: in so deep a network, random weights make chaos of rounding
    a0 = dict(num_blocks=[2, 4, 14, 1], width_factor=[0.75, 0.75, 0.75, 2.5], group_layer_map=None, stem_channels=48)
    full = dict(arch=a0 | dict(se_cfg=dict(ratio=16, divisor=1)))
    yield _mmpretrain('RepVGG-A0 + SE', 'RepVGG', full, 18, dict(arch=arch, out_indices=(1, 3)))
    why = 'it stands behind a shortcut'
    arch = dict(large_kernel_sizes=[13, 11, 9, 7], layers=[1] * 4, channels=[8, 16, 16, 32], small_kernel=5, dw_ratio=1)
    yield _mmpretrain('RepLKNet-31B', 'RepLKNet', dict(arch='31B'), 30, dict(arch=arch), norms=1, why=why)
    # its encoder is the authors' code; the decoder takes features of all sizes
    small = dict(decoder_channels=(16, 8, 8, 8, 8))
    yield _segmentation('Unet on MobileOne-S4 (SE)', 'mobileone_s4', 78, small)
    # the authors' networks, written from their papers and keys
    yield _as_authors('RepVGG-B1g4', OfficialRepVGG, 'B1g4', 6, _SMALL)
    yield _as_authors('RepVGGplus-L2pse', official.RepVGGPlus, 'L2pse', 21, _SMALL_SE)
    yield _as_authors('QARepVGG-A0', official.QARepVGG, 'A0', 6, _SMALL)
    # blocks, written from their papers
    yield _stack('ACNet', blocks.ACBlock, 7)
    yield _stack('Diverse branch block', blocks.DiverseBranchBlock, 7)
    yield _stack('YOLOv6 BottleRep', blocks.BottleRep, 13)
    yield _stack('YOLOv7 RepConv', blocks.RepConv, 7)
    yield _stack('YOLOv9 RepNBottleneck', blocks.RepNBottleneck, 13)
    yield _stack('YOLOv10 RepVGGDW', blocks.RepVggDW, 13)
    yield _stack('RT-DETR CSPRepLayer', blocks.CSPRepLayer, 31)
    yield _stack('PP-LCNetV3', blocks.LCNetV3Block, 10)
    yield _stack('OREPA', blocks.OREPA, 7)
    yield _stack('UniRepLKNet', blocks.DilatedReparamBlock, 13)
    yield _stack('SESR', blocks.CollapsibleBlock, 7)


FAMILIES = tuple(_list_families())
