"""Segmentors whose training step differs from mmseg's."""

from mmadv.models.segmentors.trades_encoder_decoder import TRADESEncoderDecoder

__all__ = ['TRADESEncoderDecoder']
