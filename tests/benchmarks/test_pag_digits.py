"""The study of aligned gradients on digits: its picture moves an image to each class, and stays in the ball."""

import pag_digits
import torch
from PIL import Image


def test_the_picture_moves_an_image_to_each_class(tmp_path):
    network, image = pag_digits.Network(0), pag_digits.load_data(0)[2][0]
    painted = pag_digits.painted(network, image)
    assert float((painted - image).flatten(1).norm(dim=1).max()) <= pag_digits.PAINTING.threat.radius + 1e-5
    before, after = (network(images).softmax(1).detach() for images in (image[None], painted))
    assert bool((after.diagonal() > before[0]).all())
    records = [{'method': 'vanilla', 'weight': None, 'seed': 0, 'clean': 0.9, 'Linf': 0.5, 'L2': 0.25}]
    path = tmp_path / 'picture.png'
    pag_digits.draw_painted({0.0: network}, records, path)
    assert Image.open(path).width == 880


def test_cluster_means_are_of_all_images_of_a_class():
    images, labels, *_ = pag_digits.load_data(0)
    target = pag_digits.build_target('cluster means', images, labels, 0)
    assert target.counts.tolist() == [pag_digits.CLUSTERS] * 10
    directions = pag_digits.directions_of(target, images[:4])
    mean = pag_digits.directions_of(pag_digits.build_target('class mean', images, labels, 0), images[:4])
    own = torch.arange(4), labels[:4]
    assert bool((directions[own].flatten(1).norm(dim=1) < mean[own].flatten(1).norm(dim=1)).all())
