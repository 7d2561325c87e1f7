"""ESPNet for MMSegmentation: a backbone and a head, registered when this package is imported."""

from .encoder import ESPNetEncoder
from .head import ESPNetHead

__all__ = ['ESPNetEncoder', 'ESPNetHead']
