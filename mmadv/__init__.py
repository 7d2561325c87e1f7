"""Adversarial training and attack evaluation for MMSegmentation.

If mmseg is installed, importing mmadv registers mmadv's components. A config then needs only
``custom_imports = dict(imports=['mmadv'])`` and a type name. The import also lets mmengine find ``_base_`` entries
written ``mmseg::...`` or ``mmadv::...``. ``mmadv.attacks`` and ``mmadv.robustness`` work without mmseg.
"""

import contextlib
import io
import warnings

from mmadv.config_paths import cfg, is_importable, register_package_names

__version__ = '0.2.0'
__all__ = ['__version__', 'cfg']

if is_importable('mmseg'):
    register_package_names()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # Without this, mmseg warns of a missing package and a missing operator that mmadv does not need.
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        import mmseg.datasets
        import mmseg.models  # noqa: F401
    import mmadv.datasets
    import mmadv.engine
    import mmadv.evaluation
    import mmadv.models  # noqa: F401  (imported to register)
    from mmadv.mm_registry import adopt_components

    adopt_components()
