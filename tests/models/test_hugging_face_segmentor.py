"""HuggingFaceSegmentor predicts what transformers' own processor predicts, for a small model of every family."""

import copy
import json
import sys

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from mmadv.attacks import PGD, Linf
from mmadv.errors import UserError
from mmadv.models import HuggingFaceSegmentor, SegmentorAdapter, stack_images
from mmadv.models.adapter import caveats
from mmadv.models.segmentors.imported_segmentor import own_weights
from tests.models.hugging_face_models import CLASSES, NAMES, SEMANTIC, UNIVERSAL, small_model

pytest.importorskip('transformers')
FAMILIES = [*SEMANTIC, *UNIVERSAL]


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Returns a small model and its processor by family, each built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = small_model(name, tmp_path_factory.mktemp(name))
        return built[name]

    return get


def outputs_of(name, model, processor, pixels):
    """Returns what the model of a family returns for images that its processor has made."""
    task = {}
    if name == 'oneformer':
        blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
        task = dict(task_inputs=processor(images=[blank], task_inputs=['semantic'], return_tensors='pt')['task_inputs'])
    with torch.no_grad():
        return model(pixel_values=pixels, **task)


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('size', [(64, 64), (80, 100)])
def test_predicts_what_the_processor_predicts(models, make_batch, name, size):
    model, processor = models(name)
    segmentor = HuggingFaceSegmentor(model, processor).eval()
    batch = make_batch([size])
    with torch.no_grad():
        (sample,) = segmentor.test_step(copy.deepcopy(batch))
        logits = SegmentorAdapter(segmentor, batch['data_samples'])(stack_images(batch['inputs']))
        inputs = segmentor.resized(segmentor.data_preprocessor(copy.deepcopy(batch))['inputs'])
    assert torch.equal(logits.argmax(1), sample.pred_sem_seg.data)

    # mmseg loads BGR.
    images = getattr(processor, 'image_processor', processor)
    options = dict(do_split_image=False) if name == 'eomt' else dict(do_center_crop=False)
    processed = images(images=[batch['inputs'][0][[2, 1, 0]]], return_tensors='pt', **options)['pixel_values']
    # The processor rounds to 8 bits after resizing the width and again after the height.
    rounding = 1e-3 if size == (64, 64) else 1.5
    levels = (inputs - processed) * segmentor.data_preprocessor.std
    assert float(levels.abs().max()) < rounding and float(levels.abs().mean()) < 0.35

    windows = inputs
    if name == 'eomt' and size != (64, 64):
        windows = torch.cat([inputs[..., :64], inputs[..., -64:]])
    output = outputs_of(name, model, processor, windows)
    if name == 'eomt':
        offsets = [(0, 0, 64), (0, inputs.shape[3] - 64, inputs.shape[3])]
        output.patch_offsets = offsets[: len(windows)]
    (expected,) = images.post_process_semantic_segmentation(
        output, target_sizes=[size], return_segmentation_scores=True
    )
    assert torch.equal(logits.argmax(1)[0], expected['segmentation'])
    torch.testing.assert_close(sample.seg_logits.data, expected['segmentation_scores'])


@pytest.mark.parametrize('name', FAMILIES)
def test_gradient_agrees_with_finite_differences(models, make_batch, name):
    model, processor = models(name)
    segmentor = HuggingFaceSegmentor(copy.deepcopy(model), processor).double().eval()
    batch = make_batch([(70, 72)])
    adapter = SegmentorAdapter(segmentor, batch['data_samples'])
    images = stack_images(batch['inputs']).double() * 0.8 + 0.1
    images.requires_grad_()
    single = SegmentorAdapter(HuggingFaceSegmentor(model, processor).eval(), batch['data_samples'])
    generator = torch.Generator().manual_seed(1)
    logits = adapter(images)
    weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images)
    pixels = images.detach().float().requires_grad_()
    (rough,) = torch.autograd.grad((single(pixels) * weights).sum(), pixels)
    assert F.cosine_similarity(rough.double().flatten(), gradient.flatten(), dim=0) > 0.95
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    step = 1e-7
    with torch.no_grad():
        above, below = ((adapter(images + sign * step * direction) * weights).sum() for sign in (1, -1))
    assert float((above - below) / (2 * step)) == pytest.approx(float((gradient * direction).sum()), rel=1e-3)


@pytest.mark.parametrize('name', ['segformer', 'mask2former'])
def test_is_attacked(models, make_batch, name):
    segmentor = HuggingFaceSegmentor(*models(name)).eval()
    batch = make_batch([(64, 64)])
    adapter = SegmentorAdapter(segmentor, batch['data_samples'])
    images = stack_images(batch['inputs'])
    with torch.no_grad():
        labels = adapter(images).argmax(1)
    attack = PGD(threat=Linf(radius='32/255'), steps=4, step_size='12/255')
    result = attack(adapter, images, labels, seeds=[0])
    assert float(result.accuracy) < 1
    assert [sentence for sentence in caveats(segmentor) if 'log-scores' in sentence] == (
        [] if name in SEMANTIC else caveats(segmentor)
    )
    assert len(caveats(segmentor)) == (name in UNIVERSAL)


def test_reads_the_label_map(models):
    segmentor = HuggingFaceSegmentor(*models('beit'))
    assert segmentor.class_names == tuple(NAMES.values()) and segmentor.num_classes == CLASSES
    assert segmentor.reduces_labels and not HuggingFaceSegmentor(*models('dpt')).reduces_labels


def test_classes_of_the_data_set_choose_and_order_the_outputs(models, make_batch):
    batch = make_batch([(64, 64)])
    images = stack_images(batch['inputs'])
    segmentor = HuggingFaceSegmentor(*models('maskformer'), classes=['Person', 'sky'])
    assert segmentor.num_classes == 2 and segmentor.class_names == ('Person', 'sky')
    with torch.no_grad():
        chosen = SegmentorAdapter(segmentor, batch['data_samples'])(images)
        whole = SegmentorAdapter(HuggingFaceSegmentor(*models('maskformer')), batch['data_samples'])(images)
    torch.testing.assert_close(chosen.softmax(1), whole[:, [4, 0]].softmax(1))
    with pytest.raises(UserError, match="SemanticSegmentation has no class 'pearson'; did you mean 'person'"):
        HuggingFaceSegmentor(*models('segformer'), classes=['sky', 'pearson'])


@pytest.mark.parametrize('name', [name for name in FAMILIES if name != 'oneformer'])
def test_trains_on_the_models_own_loss(models, make_batch, name):
    model, processor = models(name)
    attack = dict(type='PGD', threat=dict(type='Linf', radius='8/255'), steps=1, step_size='8/255')
    settings = dict(type='AdvSegDataPreProcessor', attack=attack)
    segmentor = HuggingFaceSegmentor(copy.deepcopy(model), processor, data_preprocessor=settings)
    before = copy.deepcopy(segmentor.state_dict())
    segmentor.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in segmentor.state_dict().items())
    segmentor.train()
    batch = make_batch([(64, 64)] * 2)
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:, :9] = 255
    data = segmentor.data_preprocessor(copy.deepcopy(batch), True)
    changed = (data['inputs'] * segmentor.data_preprocessor.std + segmentor.data_preprocessor.mean) / 255
    clean = stack_images(batch['inputs'])[:, [2, 1, 0] if name != 'mobilevit' else [0, 1, 2]]
    assert 0 < float((changed - clean).abs().max()) <= 8 / 255 + 1e-5
    torch.manual_seed(0)
    (loss,) = segmentor.loss(data['inputs'], data['data_samples']).values()
    loss.backward()
    assert torch.isfinite(loss) and max(p.grad.abs().max() for p in segmentor.parameters() if p.grad is not None) > 0
    if name == 'segformer':
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch['data_samples']])
        torch.manual_seed(0)
        logits = F.interpolate(segmentor.network(pixel_values=data['inputs']).logits, (64, 64), mode='bilinear')
        expected = F.cross_entropy(logits, labels, ignore_index=255)
        torch.testing.assert_close(loss, expected)


def test_oneformer_is_not_trained(models, make_batch):
    segmentor = HuggingFaceSegmentor(*models('oneformer'))
    batch = make_batch([(64, 64)])
    data = segmentor.data_preprocessor(batch, True)
    with pytest.raises(UserError, match='OneFormer is trained on texts'):
        segmentor.loss(data['inputs'], data['data_samples'])


@pytest.fixture
def saved(models, tmp_path):
    """Returns the folder of a SegFormer, as it is on the hub."""
    model, processor = models('segformer')
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_reads_a_folder(models, saved, make_batch):
    batch = make_batch([(64, 64)])
    images = stack_images(batch['inputs'])
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = MODELS.build(ConfigDict(type='HuggingFaceSegmentor', pretrained=str(saved)))
    assert own_weights(dict(type='HuggingFaceSegmentor', pretrained=str(saved))) == (
        str(saved),
        [saved / 'model.safetensors'],
    )
    with torch.no_grad():
        adapter = SegmentorAdapter(HuggingFaceSegmentor(*models('segformer')), batch['data_samples'])
        assert torch.equal(SegmentorAdapter(segmentor, batch['data_samples'])(images), adapter(images))


def test_reads_the_files_of_a_model_in_parts(models, saved):
    (saved / 'model.safetensors').unlink()
    models('segformer')[0].save_pretrained(saved, max_shard_size='40KB')
    _, files = own_weights(dict(type='HuggingFaceSegmentor', pretrained=str(saved)))
    assert len(files) > 1 and all(file.is_file() for file in files)
    HuggingFaceSegmentor(str(saved))


def without_head(folder):
    weights = load_file(folder / 'model.safetensors')
    del weights['decode_head.classifier.weight']
    save_file(weights, folder / 'model.safetensors', metadata=dict(format='pt'))


def other_classes(folder):
    change(folder / 'config.json', id2label={str(k): str(k) for k in range(7)}, label2id={str(k): k for k in range(7)})


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (without_head, 'do not fit SegformerForSemanticSegmentation: 1 missing, first decode_head.classifier.weight'),
        (
            other_classes,
            r'2 of another size, first decode_head.classifier.bias: .5,. in the file, .7,. in',
        ),
        (
            lambda folder: change(folder / 'config.json', architectures=['SegformerForImageClassification']),
            'is a SegformerForImageClassification, whose outputs are no class scores of pixels',
        ),
        (
            lambda folder: change(folder / 'preprocessor_config.json', image_mean=None),
            r'the processor of \S+ normalises images, but its image_mean is None; give model.data_preprocessor',
        ),
        (lambda folder: (folder / 'preprocessor_config.json').unlink(), 'cannot read AutoImageProcessor of '),
        (lambda folder: (folder / 'model.safetensors').unlink(), 'cannot read SegformerForSemanticSegmentation of '),
        (
            lambda folder: (folder / 'model.safetensors').write_bytes(b'cut'),
            r'cannot read SegformerForSemanticSegmentation of .*: a safetensors file is damaged or cut short \(',
        ),
        (lambda folder: (folder / 'config.json').unlink(), 'cannot read AutoConfig of '),
    ],
    ids=['weight', 'classes', 'architecture', 'mean', 'no processor', 'no weights', 'truncated', 'no config'],
)
def test_says_what_is_wrong_with_a_folder(saved, spoil, message):
    spoil(saved)
    with pytest.raises(UserError, match=message) as caught:
        HuggingFaceSegmentor(str(saved))
    assert '\n' not in str(caught.value)


def test_mean_and_std_may_be_given(saved):
    change(saved / 'preprocessor_config.json', image_mean=None)
    settings = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    segmentor = HuggingFaceSegmentor(str(saved), data_preprocessor=settings)
    assert segmentor.data_preprocessor.mean.flatten().tolist() == settings['mean']


def test_needs_a_processor(models):
    with pytest.raises(UserError, match='needs the processor of SegformerForSemanticSegmentation'):
        HuggingFaceSegmentor(models('segformer')[0])


def test_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(UserError, match=r"needs transformers; install it with pip install 'mmadv\[huggingface\]'"):
        HuggingFaceSegmentor('nvidia/segformer')
