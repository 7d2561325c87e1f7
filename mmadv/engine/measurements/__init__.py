"""The measurements of mmadv, in the order in which they are printed."""

from mmadv.engine.measurements.saved_images import SavedImages

from mmadv.engine.measurements.minimal_radius import MinimalRadius  # isort: skip
from mmadv.engine.measurements.object_sizes import ObjectSizes  # isort: skip
from mmadv.engine.measurements.sanity_checks import SanityChecks  # isort: skip
from mmadv.engine.measurements.gradients import InputGradients  # isort: skip
from mmadv.engine.measurements.universal_perturbation import UniversalPerturbation  # isort: skip
from mmadv.engine.measurements.patch_texture import PatchTexture  # isort: skip
from mmadv.engine.measurements.certificates import Certificates  # isort: skip
from mmadv.engine.measurements.common_corruptions import CommonCorruptions  # isort: skip
from mmadv.engine.measurements.calibration import Calibration  # isort: skip
from mmadv.engine.measurements.region_distance import RegionDistance  # isort: skip
from mmadv.engine.measurements.radius_sheet import RadiusSheet  # isort: skip

__all__ = [
    'Calibration',
    'Certificates',
    'CommonCorruptions',
    'InputGradients',
    'MinimalRadius',
    'ObjectSizes',
    'PatchTexture',
    'RadiusSheet',
    'RegionDistance',
    'SanityChecks',
    'SavedImages',
    'UniversalPerturbation',
]
