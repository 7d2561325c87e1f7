# FCN on ResNet-101, the network of torchvision's fcn_resnet101.
_base_ = 'fcn_r50.py'
model = dict(backbone=dict(depth=101))
