"""Common corruptions of images: noise, blur, weather and digital faults, in pure NumPy, SciPy, OpenCV and Pillow."""

from mmadv.corruptions.corrupt import (
    CORRUPTIONS,
    FROST,
    GROUPS,
    SCALES,
    SEVERITIES,
    Severity,
    corrupt,
    corruption_seed,
    corruptions_of,
    severities_of,
)
from mmadv.corruptions.photographs import frost_photographs

__all__ = [
    'CORRUPTIONS',
    'FROST',
    'GROUPS',
    'SCALES',
    'SEVERITIES',
    'Severity',
    'corrupt',
    'corruption_seed',
    'corruptions_of',
    'frost_photographs',
    'severities_of',
]
