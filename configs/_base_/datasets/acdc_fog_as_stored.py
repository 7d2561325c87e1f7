# ACDC in fog (validation): images at their stored size, with the 19 classes of Cityscapes.
data_root = 'data/acdc'
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='Cityscapes19Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='rgb_anon/fog/val', seg_map_path='gt/fog/val'),
        img_suffix='_rgb_anon.png',
        seg_map_suffix='_gt_labelTrainIds.png',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
