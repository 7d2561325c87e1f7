# ACDC in fog (validation), with the 19 classes of Cityscapes.
_base_ = './cityscapes_as_stored.py'
data_root = 'data/acdc'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='rgb_anon/fog/val', seg_map_path='gt/fog/val'),
        img_suffix='_rgb_anon.png',
        seg_map_suffix='_gt_labelTrainIds.png',
    ),
)
