"""Backbones that mmseg lacks."""

from mmadv.models.backbones.timm_convnext import TimmConvNeXt

__all__ = ['TimmConvNeXt']
