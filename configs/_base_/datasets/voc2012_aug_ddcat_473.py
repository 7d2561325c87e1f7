# PASCAL VOC 2012 + SBD as DDC-AT's authors train on it: 10582 images, half to twice their size (nearly all have a long
# side of 500), crop 473, padded with the mean colour. Testing is that of voc2012_aug_473.py; the authors average the
# probabilities of overlapping crops instead. `mmadv prepare voc` writes the list aug.txt.
_base_ = './voc2012_aug_473.py'
data_root = 'data/VOCdevkit/VOC2012'
crop_size = (473, 473)
mean_color = (104, 116, 124)  # blue, green, red
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(500, 500), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomRotate', prob=0.5, degree=10, pad_val=mean_color, seg_pad_val=255),
    dict(type='RandomGaussianBlur', prob=0.5, sigma=(1.1, 1.1)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=crop_size, pad_val=dict(img=mean_color, seg=255)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='PackSegInputs'),
]
voc_train = dict(
    type='VOC2012Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline=train_pipeline,
)
sbd_rest = dict(
    type='VOC2012Dataset',
    data_root=data_root,
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
    ann_file='ImageSets/Segmentation/aug.txt',
    pipeline=train_pipeline,
)
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[voc_train, sbd_rest]))
