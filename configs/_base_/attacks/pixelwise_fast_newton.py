# The average of the adversarial images of all pixels, which Fast Newton approximates. One gradient for each pixel.
attack = dict(type='PixelwiseFastNewton')
