# Cityscapes-C (validation): one corruption at one severity, images at their stored size. `mmadv prepare cityscapes-c`
# writes the label maps.
data_root = 'data/cityscapes_c'
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='Cityscapes19Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='fog-3/leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
