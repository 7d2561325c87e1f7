# ACDC in snow (validation).
_base_ = './acdc_fog_as_stored.py'
test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/snow/val', seg_map_path='gt/snow/val')),
)
