"""Metadata and dependencies of mmadv."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mmadv' / '__init__.py').read_text(encoding='utf-8')).group(1)

# What builds the documentation site. mkdocs 2 takes no plugins.
DOCS = ['mkdocs<2', 'mkdocs-material', 'mkdocstrings[python]']
# Segmentors of Hugging Face. Since version 5 all their image processors work on tensors.
HUGGINGFACE = ['transformers>=5']

setup(
    name='mmadv',
    version=VERSION,
    description='Adversarial training and attack evaluation for MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    keywords='adversarial robustness, semantic segmentation, mmsegmentation',
    python_requires='>=3.10',
    packages=find_packages(include=['mmadv', 'mmadv.*']),
    # mmadv/.mim/configs and mmadv/.mim/tools are links to configs/ and tools/; a wheel holds the files themselves.
    package_data={
        'mmadv': ['py.typed', '.mim/model-index.yml', '.mim/configs/**/*.py', '.mim/tools/*.py'],
        'mmadv.report': ['templates/*'],
    },
    entry_points={'console_scripts': ['mmadv = mmadv.commands.main:main']},
    include_package_data=False,
    zip_safe=False,
    install_requires=[
        'torch>=2.6.0',
        'torchvision>=0.21.0',
        'timm>=1.0.22',
        'numpy>=2.0.1',
        'scipy>=1.13.1',
        'jinja2>=3.1.2',
        'matplotlib>=3.9.0',
        'onedl-mmengine>=0.10.12',
        'onedl-mmcv>=2.3.6',
        'onedl-mmsegmentation>=1.4.2',
        'opencv-python>=4.10.0.84',
        'scikit-learn>=1.5.0',
        'tensorboard>=2.17.1',
        'tqdm>=4.66.0',
    ],
    extras_require={
        'coco': ['pycocotools'],
        # Its photographs of frost; its code is not imported.
        'corruptions': ['imagecorruptions'],
        'huggingface': HUGGINGFACE,
        # MaskFormer and Mask2Former of mmseg. They also need an onedl-mmcv with compiled ops: docs/installation.md.
        'mmdet': ['onedl-mmdetection>=3.5.1'],
        # ConvNeXt and PoolFormer of mmseg.
        'mmpretrain': ['onedl-mmpretrain>=1.3.6'],
        # What benchmarks/against_peers.py compares with; its docstring says what adv-lib's visdom needs.
        'peers': ['adv-lib', 'torchattacks'],
        'docs': DOCS,
        'dev': [
            *DOCS,
            *HUGGINGFACE,
            'hypothesis',
            'mypy',
            'pre-commit',
            'pycocotools',
            'pytest>=9',
            'pytest-xdist',
            'ruff',
        ],
    },
)
