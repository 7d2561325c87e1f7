# SEA in L2, at 0.5 for images in [0, 1], with 100 iterations of each loss: an upper bound beside L2 certificates.
attack = dict(type='sea', radius=0.5, iterations=100, threat='L2')
