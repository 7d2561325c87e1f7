# Handwritten digits on photographs, drawn at run time: no data to download.
pipeline = [dict(type='LoadDigitScene'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='DigitScenesDataset', split='train', length=20000, pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='DigitScenesDataset', split='val', length=128, pipeline=pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
