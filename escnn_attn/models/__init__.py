"""Blocks, stems and whole networks."""

from escnn_attn.models._export import crop
from escnn_attn.models.backbone import SteerableBackbone
from escnn_attn.models.block import SteerableStack, SteerableTransformerBlock
from escnn_attn.models.config import build
from escnn_attn.models.dense import SteerableDenseTransformer
from escnn_attn.models.factories import group_block, steerable_block
from escnn_attn.models.image import SteerableFieldTransformer, SteerableTransformer
from escnn_attn.models.point import SteerablePointClassifier, SteerablePointTransformer
from escnn_attn.models.published import PretrainedNetwork
from escnn_attn.models.pyramid import Stage
from escnn_attn.models.stems import antialiased_stem, convolution_stem, lifting_stem, patch_stem
from escnn_attn.models.unet import SteerableUNet
