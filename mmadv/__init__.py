"""Adversarial training and attack evaluation for MMSegmentation.

Where mmseg is installed, importing mmadv registers its components, so that
``custom_imports = dict(imports=['mmadv'])`` and a type name suffice in a config, and makes ``_base_`` entries
``mmseg::...`` and ``mmadv::...`` resolve. ``mmadv.attacks`` and ``mmadv.robustness`` work without mmseg.
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
        # They would say that a package and an operator are missing which nobody needs here.
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        import mmseg.datasets
        import mmseg.models  # noqa: F401
    import mmadv.datasets
    import mmadv.engine
    import mmadv.evaluation
    import mmadv.models  # noqa: F401  (imported to register)
    from mmadv.mm_registry import adopt_components

    adopt_components()
