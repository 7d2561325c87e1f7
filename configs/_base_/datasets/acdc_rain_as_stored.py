# ACDC in rain (validation).
_base_ = './acdc_fog_as_stored.py'
test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path='rgb_anon/rain/val', seg_map_path='gt/rain/val')),
)
