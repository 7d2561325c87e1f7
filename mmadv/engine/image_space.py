"""Attacks on the pixels of the image file instead of the pixels that the pipeline resized for the network."""

from __future__ import annotations

from typing import Any

from mmadv.engine.data import NamedErrors, leaves
from mmadv.errors import UserError

RESIZING = ('Resize',)
# Steps that a test pipeline may have besides the resizing: they move no pixel, or the adapter repeats them.
HARMLESS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadDigitScene', 'PackSegInputs', 'RandomFlip')
META_KEY = 'network_size'


class DeferredResize:
    """Leaves an image unchanged, and stores in ``network_size`` the height and width after a resizing step.

    The adapter resizes instead, differentiably. Both interpolate bilinearly without smoothing. The step rounds to whole
    grey levels, but the adapter does not.

    Args:
        resize: the resizing step of the pipeline.
    """

    def __init__(self, resize: Any) -> None:
        self.resize = resize

    def __call__(self, results: dict) -> dict:
        if 'gt_seg_map' in results:
            raise UserError(
                'test_cfg.space image needs the labels at the size of the image; '
                'load the annotations after the Resize step'
            )
        resized = self.resize({**results})
        results[META_KEY] = tuple(resized['img'].shape[:2])
        if 'scale_factor' in resized:
            results['scale_factor'] = resized['scale_factor']
        return results


def attack_image_files(dataset: Any) -> None:
    """Changes the pipelines of a dataset so that they give the images unchanged, as in their files.

    Raises:
        UserError: a pipeline has a step that the attack cannot be computed through.
    """
    for part in leaves(dataset):
        pipeline = getattr(part, 'pipeline', None)
        compose = pipeline.pipeline if isinstance(pipeline, NamedErrors) else pipeline
        steps = getattr(compose, 'transforms', None)
        if steps is None:
            raise UserError(f'test_cfg.space image needs a pipeline of mmengine; {type(part).__name__} has none')
        names = [type(step).__name__ for step in steps]
        for name, step in zip(names, steps, strict=True):
            if name not in HARMLESS + RESIZING:
                raise UserError(
                    f'test_cfg.space image cannot see through the step {name} of the test pipeline; '
                    'use test_cfg.space input'
                )
            if name in RESIZING and getattr(step, 'interpolation', 'bilinear') != 'bilinear':
                raise UserError(f'test_cfg.space image needs bilinear resizing; {name} has {step.interpolation}')
        if sum(name in RESIZING for name in names) > 1:
            raise UserError('test_cfg.space image takes one Resize step in the test pipeline; found several')
        for position, name in enumerate(names):
            if name in RESIZING:
                steps[position] = DeferredResize(steps[position])
            elif name == 'PackSegInputs':
                steps[position].meta_keys = (*steps[position].meta_keys, META_KEY)
