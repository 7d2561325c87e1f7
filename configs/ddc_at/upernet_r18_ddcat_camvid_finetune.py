_base_ = ['../clean/upernet_r18_clean_camvid_finetune.py', '../_base_/methods/ddcat_bim3_003.py']
model = {{_base_.method.model}}
