# COCO 2017 with VOC's 21 classes, for paper 'Adversarially robust segmentation models learn perceptually-aligned
# gradients', which names no sizes. These sizes are from torchvision's reference training, which made the paper's first
# model: short side 260 to 1040, crop 480; validation at short side 520, scored at this size.
# `mmadv prepare coco` draws the label maps.
data_root = 'data/coco'
crop_size = (480, 480)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(8192, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='ResizeShortestEdge', scale=520, max_size=8192),
    dict(type='ScoreAtInputSize'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='COCOVOC21Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='train2017', seg_map_path='annotations/voc21/train2017'),
        ann_file='annotations/voc21/train2017.txt',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='COCOVOC21Dataset',
        data_root=data_root,
        data_prefix=dict(img_path='val2017', seg_map_path='annotations/voc21/val2017'),
        ann_file='annotations/voc21/val2017.txt',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
