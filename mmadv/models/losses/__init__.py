"""Losses of training methods, registered for mmseg's heads and segmentors."""

from mmadv.models.losses.jensen_shannon_loss import JensenShannonLoss
from mmadv.models.losses.kl_divergence_loss import KLDivergenceLoss

__all__ = ['JensenShannonLoss', 'KLDivergenceLoss']
