"""Image synthesis with a segmentor's gradients, in pure torch: inpainting, generation and large-ε targeted attacks."""

from mmadv.synthesis.class_gaussian import ClassGaussian
from mmadv.synthesis.descent import Descent, ball
from mmadv.synthesis.painting import corrupt, generate, inpaint, move_to_class
from mmadv.synthesis.quality import mean_absolute_error, psnr, ssim

__all__ = [
    'ClassGaussian',
    'Descent',
    'ball',
    'corrupt',
    'generate',
    'inpaint',
    'mean_absolute_error',
    'move_to_class',
    'psnr',
    'ssim',
]
