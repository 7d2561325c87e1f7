# Gaussian noise of standard deviation 0.12 (the smallest one of Cohen et al., 2019), clipped to the range of images.
attack = dict(type='GaussianNoise', sigma=0.12)
