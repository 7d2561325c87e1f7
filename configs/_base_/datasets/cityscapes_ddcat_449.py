# Cityscapes as DDC-AT's authors train on it: scales from a quarter of the frame's size to its full size, crop 449,
# padded with the mean colour. Testing: the frame at half its size, scored at its full size. The authors average the
# probabilities of overlapping crops instead.
_base_ = './cityscapes_712.py'
crop_size = (449, 449)
mean_color = (104, 116, 124)  # blue, green, red
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), ratio_range=(0.25, 1.0), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=mean_color, seg_pad_val=255),
    dict(type='RandomGaussianBlur', prob=0.5, sigma=(1.1, 1.1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=crop_size, pad_val=dict(img=mean_color, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1024, 512), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
