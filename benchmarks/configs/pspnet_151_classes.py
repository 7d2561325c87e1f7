# The same with 151 classes.
_base_ = './pspnet_21_classes.py'
dataset = dict(cells=(3, 5))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
model = dict(decode_head=dict(num_classes=151, loss_decode=dict(class_weight=[0.25] + 150 * [1.0])))
