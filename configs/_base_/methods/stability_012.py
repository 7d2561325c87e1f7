# Stability training (Zheng et al., 2016; Li et al., 2019) with Gaussian noise of standard deviation 0.12: the loss on
# clean images and 6 times the divergence of the noisy from the clean prediction.
method = dict(
    model=dict(
        type='TRADESEncoderDecoder',
        beta=6.0,
        data_preprocessor=dict(type='AdvSegDataPreProcessor', attack=dict(type='GaussianNoise', sigma=0.12)),
    )
)
