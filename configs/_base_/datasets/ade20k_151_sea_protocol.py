# ADE20K (validation, 2000 images) as SEA's authors score their published segmentors, which is not mmseg's habit: 151
# classes, label 0 among them, so that no pixel is ignored; short side to 512 by PIL's antialiased bilinear, centre
# crop, scored there. Training data is in ade20k_151_512.py.
data_root = 'data/ade/ADEChallengeData2016'
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation', imdecode_backend='pillow'),
    dict(type='LoadAnnotations'),
    dict(type='ResizeShortSide', size=512),
    dict(type='CenterCrop', crop_size=(512, 512)),
    dict(type='ScoreAtInputSize'),
    dict(type='PackSegInputs'),
]
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20K151Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
