"""Small random segmentation models of transformers, one of each family, and their processors."""

import json

import torch

CLASSES = 5
NAMES = {0: 'sky', 1: 'tree', 2: 'road', 3: 'car', 4: 'person'}
LABELS = dict(num_labels=CLASSES, id2label=NAMES, label2id={name: k for k, name in NAMES.items()})


def segformer(t):
    config = t.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8, **LABELS
    )
    return t.SegformerForSemanticSegmentation(config), t.SegformerImageProcessor(size=dict(height=64, width=64))


def upernet(t):
    backbone = t.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=['stage1', 'stage2', 'stage3', 'stage4']
    )
    config = t.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        auxiliary_in_channels=16,
        auxiliary_channels=8,
        pool_scales=[1, 2],
        **LABELS,
    )
    return t.UperNetForSemanticSegmentation(config), t.SegformerImageProcessor(size=dict(height=64, width=64))


def dpt(t):
    config = t.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        **LABELS,
    )
    return t.DPTForSemanticSegmentation(config), t.DPTImageProcessor(size=dict(height=64, width=64))


def beit(t, name='Beit'):
    config = getattr(t, f'{name}Config')(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=16,
        out_indices=[1, 2, 3, 4],
        pool_scales=[1, 2],
        auxiliary_channels=8,
        use_relative_position_bias=True,
        **LABELS,
    )
    size = dict(height=64, width=64)
    processor = t.BeitImageProcessor(size=size, do_center_crop=False, do_reduce_labels=True)
    return getattr(t, f'{name}ForSemanticSegmentation')(config), processor


def data2vec(t):
    return beit(t, 'Data2VecVision')


def mobilevit(t):
    config = t.MobileViTConfig(
        image_size=64,
        hidden_sizes=[16, 16, 16],
        neck_hidden_sizes=[4, 8, 8, 8, 16, 16, 32],
        aspp_out_channels=8,
        **LABELS,
    )
    processor = t.MobileViTImageProcessor(size=dict(shortest_edge=64), crop_size=dict(height=64, width=64))
    return t.MobileViTForSemanticSegmentation(config), processor


def _swin(t, **changes):
    return t.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2, patch_size=4, **changes
    )


def maskformer(t):
    detr = t.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        num_queries=6,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    config = t.MaskFormerConfig(
        backbone_config=_swin(t), decoder_config=detr, fpn_feature_size=32, mask_feature_size=32, **LABELS
    )
    processor = t.MaskFormerImageProcessor(size=dict(shortest_edge=64, longest_edge=128), num_labels=CLASSES)
    return t.MaskFormerForInstanceSegmentation(config), processor


def mask2former(t):
    config = t.Mask2FormerConfig(
        backbone_config=_swin(t, out_features=['stage1', 'stage2', 'stage3', 'stage4']),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=8,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=8,
        num_queries=6,
        train_num_points=64,
        **LABELS,
    )
    processor = t.Mask2FormerImageProcessor(size=dict(shortest_edge=64, longest_edge=128), num_labels=CLASSES)
    return t.Mask2FormerForUniversalSegmentation(config), processor


def oneformer(t, folder):
    config = t.OneFormerConfig(
        backbone_config=_swin(t, out_features=['stage1', 'stage2', 'stage3', 'stage4']),
        is_training=False,
        num_queries=6,
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=8,
        encoder_layers=1,
        decoder_layers=2,
        query_dec_layers=1,
        num_attention_heads=2,
        dim_feedforward=8,
        task_seq_len=12,
        text_encoder_width=8,
        text_encoder_context_length=12,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=600,
        **LABELS,
    )
    letters = 'abcdefghijklmnopqrstuvwxyz'
    words = [*letters, *(f'{one}</w>' for one in letters), '<|startoftext|>', '<|endoftext|>']
    (folder / 'vocab.json').write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    tokenizer = t.CLIPTokenizer.from_pretrained(folder)
    (folder / 'classes.json').write_text(json.dumps({str(k): dict(name=name, isthing=0) for k, name in NAMES.items()}))
    images = t.OneFormerImageProcessor(
        size=dict(shortest_edge=64, longest_edge=128), class_info_file='classes.json', repo_path=str(folder)
    )
    processor = t.OneFormerProcessor(image_processor=images, tokenizer=tokenizer, task_seq_length=12)
    return t.OneFormerForUniversalSegmentation(config), processor


def eomt(t):
    config = t.EomtConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_queries=6,
        num_upscale_blocks=1,
        intermediate_size=16,
        train_num_points=64,
        **LABELS,
    )
    processor = t.EomtImageProcessor(size=dict(shortest_edge=64, longest_edge=None), do_split_image=True)
    return t.EomtForUniversalSegmentation(config), processor


SEMANTIC = dict(segformer=segformer, upernet=upernet, dpt=dpt, beit=beit, data2vec=data2vec, mobilevit=mobilevit)
UNIVERSAL = dict(maskformer=maskformer, mask2former=mask2former, oneformer=oneformer, eomt=eomt)


def small_model(name, folder):
    """Returns a random model that predicts several classes, and its processor.

    Args:
        name: of the family.
        folder: for the files of a tokenizer.
    """
    import transformers

    torch.manual_seed(0)
    make = {**SEMANTIC, **UNIVERSAL}[name]
    model, processor = make(transformers, folder) if name == 'oneformer' else make(transformers)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.xavier_normal_(parameter, gain=1.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for key, parameter in model.named_parameters():
            # Queries of different classes, as trained ones are.
            if key.endswith(('class_predictor.weight', 'class_embed.layers.0.0.weight')):
                parameter.mul_(8)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms:
        # Statistics of some images, without which the activations of deep models vanish.
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            model.train()(pixel_values=torch.randn(4, 3, 64, 64))
    return model.eval(), processor
