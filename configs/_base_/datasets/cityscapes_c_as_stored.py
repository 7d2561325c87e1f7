# Cityscapes-C (validation): one corruption at one severity. `mmadv prepare cityscapes-c` writes the label maps.
_base_ = './cityscapes_as_stored.py'
data_root = 'data/cityscapes_c'
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path='fog-3/leftImg8bit/val', seg_map_path='gtFine/val'),
    ),
)
