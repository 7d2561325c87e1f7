# Aligned gradients without a teacher: the gradient of repainted regions' scores points to the repainted image.
_base_ = 'standard.py'
model = dict(type='PAGEncoderDecoder', pag=dict(weight=0.5))
custom_hooks = [
    dict(type='ChannelsLastHook'),
    dict(
        type='PAGTargetHook',
        target=dict(type='RegionExemplars', per_class=32, regions=4),
        size=(40, 40),
    ),
]
