# ADE20K with 150 classes (SEA, appendix C.3): as ade20k_151_512.py, but pixels without a label are ignored.
_base_ = './ade20k_151_512.py'
train_pipeline, test_pipeline, whole_test_pipeline = (
    [dict(step, reduce_zero_label=True) if step['type'] == 'LoadAnnotations' else step for step in pipeline]
    for pipeline in (_base_.train_pipeline, _base_.test_pipeline, _base_.whole_test_pipeline)
)
train_dataloader = dict(dataset=dict(type='ADE20KDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='ADE20KDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
