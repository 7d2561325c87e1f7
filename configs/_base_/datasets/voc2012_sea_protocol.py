# PASCAL VOC 2012 (val, 1449 images) as SEA's authors score their published segmentors, unlike mmseg. Short side
# to 473 by PIL's antialiased bilinear, centre crop, scored at this size. Void pixels are background, so no pixel is
# ignored. Training data is in voc2012_aug_473.py.
data_root = 'data/VOCdevkit/VOC2012'
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation', imdecode_backend='pillow'),
    dict(type='LoadAnnotations'),
    dict(type='VoidToClass', label=0),
    dict(type='ResizeShortSide', size=473),
    dict(type='CenterCrop', crop_size=(473, 473)),
    dict(type='ScoreAtInputSize'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VOC2012Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
