"""Every public call of mmadv.robustness refuses every spoilt argument in one sentence that names it."""

import numpy as np
import pytest
import torch
from mutations import cases, check_complete, check_refused, public_calls, rights
from toy_models import batch, conv_net

import mmadv.attacks
import mmadv.robustness as robustness
from mmadv.robustness import Certifier, ClassBank, PAGLoss, SmoothedModel

MODEL = conv_net(0).eval()
IMAGES, LABELS = batch(0, size=(6, 7))
LOGITS = MODEL(IMAGES).detach()
PREDICTIONS = LOGITS.argmax(1)
CLASSES = torch.tensor([[0, 1], [1, 2], [2, 3]])
COUNTS = robustness.count(PREDICTIONS, LABELS, 4)
SUMS = robustness.calibration_sums(LOGITS[0], LABELS[0], bins=5)
ATTACK = robustness.SmoothAdv(attack=mmadv.attacks.PGD(threat=mmadv.attacks.L2(radius=0.5)), sigma=0.1)
MEMBERS = {'a': COUNTS, 'b': robustness.count(PREDICTIONS.flip(1), LABELS, 4)}
BANK = ClassBank(IMAGES[:, None].repeat(1, 2, 1, 1, 1)[[0, 1, 2, 0]], torch.tensor([2, 1, 2, 1]))
SHARES = np.linspace(0.1, 0.9, 8).reshape(4, 2)
VECTORS = torch.rand(3, 2, 3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCH = dict(images=IMAGES, classes=CLASSES, labels=LABELS)
MAP = dict(classes=PREDICTIONS[0].numpy(), labels=LABELS[0].numpy())


def differentiable():
    images = IMAGES.clone().requires_grad_()
    return images, robustness.class_scores(MODEL(images), CLASSES, LABELS)


def gradients():
    images, scores = differentiable()
    return robustness.input_gradients, dict(scores=scores, images=images, create_graph=True)


def loss():
    images, scores = differentiable()
    return PAGLoss(weight=1.0), dict(scores=scores, images=images, targets=VECTORS, mask=IMAGES > 0.1)


# name -> a function that returns the callable and its right arguments.
CALLS = {
    'Certifier': lambda: (
        Certifier,
        dict(sigma=0.1, n0=2, n=100, alpha=0.01, taus=[0.75], kind='soft', bound='hoeffding', correction='holm')
        | dict(batch=4, sides='one', hierarchy=None),
    ),
    'Certifier.__call__': lambda: (
        Certifier(sigma=0.1, n0=1, n=50, taus=[0.5]),
        dict(model=MODEL, image=IMAGES[0], seed=0),
    ),
    'Certifier.check_samples': lambda: (Certifier(sigma=0.1).check_samples, dict(pixels=10, bounds_per_pixel=1)),
    'Hierarchy': lambda: (
        robustness.Hierarchy,
        dict(classes=['a', 'b', 'c'], levels=[{'ab': ['a', 'b']}]),
    ),
    'ClassBank': lambda: (ClassBank, dict(examples=BANK.examples, counts=BANK.counts)),
    'ClassBank.to': lambda: (BANK.to, dict(device='cpu')),
    'ClassMean': lambda: (robustness.ClassMean, dict(bank=BANK, scale=1.5, without=[0])),
    'Counts': lambda: (
        robustness.Counts,
        dict(intersection=COUNTS.intersection, prediction=COUNTS.prediction, label=COUNTS.label),
    ),
    'Counts.concatenate': lambda: (robustness.Counts.concatenate, dict(parts=[COUNTS, COUNTS])),
    'Counts.select': lambda: (COUNTS.select, dict(images=np.array([0, 2]))),
    'Distillation': lambda: (
        robustness.Distillation,
        dict(teacher=MODEL, num_classes=4, over='valid', ignore_index=255),
    ),
    'Distillation.forward': lambda: (robustness.Distillation(MODEL, 4), BATCH),
    'Distillation.train': lambda: (robustness.Distillation(MODEL, 4).train, dict(mode=False)),
    'FixedRepresentative': lambda: (robustness.FixedRepresentative, dict(representatives=BANK.examples[:, 0])),
    'FixedRepresentative.forward': lambda: (robustness.OneImage(BANK), BATCH),
    'NearestClusterMean': lambda: (
        robustness.NearestClusterMean,
        dict(bank=BANK, clusters=2, seed=0, without=[0]),
    ),
    'NearestNeighbour': lambda: (robustness.NearestNeighbour, dict(bank=BANK, without=[0])),
    'NearestNeighbour.forward': lambda: (robustness.NearestNeighbour(BANK), BATCH),
    'OneImage': lambda: (robustness.OneImage, dict(bank=BANK, without=[0])),
    'PAGLoss': lambda: (PAGLoss, dict(weight=1.0, num_classes=4, guard=1e-8)),
    'PAGLoss.__call__': loss,
    'SmoothAdv.with_radius': lambda: (ATTACK.with_radius, dict(radius='4/255')),
    'SmoothedModel': lambda: (
        SmoothedModel,
        dict(model=MODEL, sigma=0.1, samples=2, output='soft', noise='fresh', seed=0, draws_per_pass=1)
        | dict(image_seeds=[1, 2, 3]),
    ),
    'SmoothedModel.forward': lambda: (SmoothedModel(MODEL, sigma=0.1, samples=1), dict(images=IMAGES)),
    'bonferroni': lambda: (robustness.bonferroni, dict(p_values=SHARES, alpha=0.05)),
    'holm': lambda: (robustness.holm, dict(p_values=SHARES, alpha=0.05)),
    'bootstrap': lambda: (robustness.bootstrap, dict(counts=COUNTS, samples=5, level=0.9, seed=1)),
    'paired_bootstrap': lambda: (
        robustness.paired_bootstrap,
        dict(counts=COUNTS, reference=COUNTS, samples=5, level=0.9, seed=1),
    ),
    'calibration_sums': lambda: (
        robustness.calibration_sums,
        dict(logits=LOGITS[0], labels=LABELS[0], bins=5, ignore_index=255),
    ),
    'calibration_metrics': lambda: (robustness.calibration_metrics, dict(sums=SUMS)),
    'calibration_intervals': lambda: (robustness.calibration_intervals, dict(images=[SUMS, SUMS], samples=5, seed=1)),
    'percentile_interval': lambda: (robustness.percentile_interval, dict(values=np.arange(9.0), level=0.9)),
    'resampled_miou': lambda: (robustness.resampled_miou, dict(counts=COUNTS, samples=5, seed=1)),
    'certified_counts': lambda: (
        robustness.certified_counts,
        dict(**MAP, certified=PREDICTIONS[0].numpy() > 0, num_classes=4, ignore_index=255),
    ),
    'certified_radius': lambda: (robustness.certified_radius, dict(lower=SHARES, sigma=0.1, upper=SHARES)),
    'soft_radii': lambda: (
        robustness.soft_radii,
        dict(means=SHARES, variances=SHARES / 4, n=50, alpha=0.05, sigma=0.1, bound='hoeffding'),
    ),
    'worst_iou': lambda: (robustness.worst_iou, dict(counts=COUNTS, abstained=COUNTS.label)),
    'class_scores': lambda: (
        robustness.class_scores,
        dict(logits=LOGITS, classes=CLASSES, labels=LABELS, over='valid', ignore_index=255),
    ),
    'cosine_similarity': lambda: (
        robustness.cosine_similarity,
        dict(vectors=VECTORS, others=VECTORS, guard=1e-8),
    ),
    'high_frequency_share': lambda: (robustness.high_frequency_share, dict(gradients=VECTORS, cutoff=0.25)),
    'input_gradients': gradients,
    'measure_gradients': lambda: (
        robustness.measure_gradients,
        dict(model=MODEL, **BATCH, target=robustness.OneImage(BANK), over='valid', ignore_index=255),
    ),
    'count': lambda: (
        robustness.count,
        dict(predictions=PREDICTIONS, labels=LABELS, num_classes=4, ignore_index=255, void=[9]),
    ),
    'draw_bank': lambda: (
        robustness.draw_bank,
        dict(images=IMAGES, labels=torch.tensor([0, 1, 2]), num_classes=3, per_class=1, seed=0),
    ),
    'cluster_means': lambda: (robustness.cluster_means, dict(examples=IMAGES, clusters=2, seed=0)),
    'metrics': lambda: (robustness.metrics, dict(counts=COUNTS)),
    'chosen_counts': lambda: (robustness.chosen_counts, dict(members=MEMBERS, choice=np.array([0, 1, 0]))),
    'worst_case': lambda: (robustness.worst_case, dict(members=MEMBERS)),
    'greedy_worst_case': lambda: (robustness.greedy_worst_case, dict(members=MEMBERS)),
    'lowest_miou': lambda: (robustness.lowest_miou, dict(members=MEMBERS, random_starts=1, seed=0)),
    'every_subset': lambda: (robustness.every_subset, dict(members=MEMBERS)),
    'wins': lambda: (robustness.wins, dict(members=MEMBERS)),
}
# name -> why it is not called with spoilt arguments.
EXEMPT = {
    **dict.fromkeys(
        ('Alignment', 'CalibrationSums', 'Certificate', 'LowestMIoU'), 'a result, which only the package makes'
    ),
    **dict.fromkeys(('GradientTarget', 'GradientTarget.forward'), 'abstract; its subclasses are tried'),
    'SmoothAdv': 'registered: test_fields_of_components.py',
    'SmoothAdv.run': 'a step of the loops of attacks',
}
BANKS = ('ClassMean', 'NearestClusterMean', 'NearestNeighbour', 'OneImage')
P_VALUES = ('bonferroni.p_values', 'holm.p_values')
VECTOR_ARGUMENTS = ('cosine_similarity.vectors', 'cosine_similarity.others')
FORWARD = [f'{name}.forward' for name in ('FixedRepresentative', 'NearestNeighbour', 'Distillation')]
SEEDS = [
    f'{name}.seed'
    for name in (
        'Certifier.__call__',
        'SmoothedModel',
        'bootstrap',
        'paired_bootstrap',
        'resampled_miou',
        'calibration_intervals',
    )
]
SEEDS += ['draw_bank.seed', 'lowest_miou.seed', 'NearestClusterMean.seed', 'cluster_means.seed']
RIGHT = rights(
    ('a number in the range', '0', *SEEDS, 'lowest_miou.random_starts', 'high_frequency_share.cutoff'),
    ('logits of any size and precision', 'negative|half|in 0..255', 'calibration_sums.logits'),
    ('any number of images', '[]|one less|one more', 'calibration_intervals.images'),
    (
        'any numbers; nan is left out',
        'array in 0..255|array negative|array with nan|array with inf|array smaller batch',
        'percentile_interval.values',
    ),
    ('a number in the range', '0', 'certified_radius.lower', 'certified_radius.upper'),
    ('a number in the range', '2.5', 'ClassMean.scale', 'PAGLoss.weight', 'PAGLoss.guard', 'cosine_similarity.guard'),
    ('a number in the range', '2.5', 'SmoothAdv.with_radius.radius'),
    ('labels may be ignored by any number', '-1|0', 'Distillation.ignore_index'),
    ('a right setting', 'True', 'Distillation.train.mode', 'input_gradients.create_graph'),
    ('another threshold', 'reals', 'Certifier.taus'),
    ('names of classes', 'texts|one more', 'Hierarchy.classes'),
    ('images of any size', 'narrower|lower', 'Certifier.__call__.image', 'ClassBank.examples', 'draw_bank.images'),
    ('images of any size', 'smaller batch|empty|narrower|lower', 'SmoothedModel.forward.images'),
    ('the model refuses other channels itself', 'smaller batch', 'Certifier.__call__.image'),
    (
        'the model refuses other precisions itself',
        'half',
        'SmoothedModel.forward.images',
        'Distillation.forward.images',
    ),
    ('the model refuses other dimensions itself', 'without a dimension', 'Distillation.forward.images'),
    ('stored examples may be bytes, of any precision', 'bytes|half', 'ClassBank.examples', 'draw_bank.images'),
    ('points in any space', 'without a dimension', 'draw_bank.images'),
    (
        'points in any space, of any precision and number',
        'without a dimension|another dimension|smaller batch|narrower|lower|half|in 0..255|negative',
        'cluster_means.examples',
    ),
    ('any classes that the bank need not hold', '[]|one less|one more', *(f'{name}.without' for name in BANKS)),
    ('indexes of any number', 'array too large', 'Counts.prediction', 'Counts.label', 'worst_iou.abstained'),
    ('any number of parts', 'one less|one more', 'Counts.concatenate.parts'),
    ('any number of images', '[]|array smaller batch|array empty|tensor', 'Counts.select.images'),
    ('normalised images, points', 'with nan|with inf|in 0..255|negative', *(f'{name}.images' for name in FORWARD)),
    ('of any precision', 'half', 'FixedRepresentative.forward.images', 'NearestNeighbour.forward.images'),
    ('fewer targets', 'narrower', *(f'{name}.classes' for name in FORWARD)),
    ('fewer targets', 'narrower', 'class_scores.classes', 'measure_gradients.classes'),
    ('only a teacher reads labels', 'narrower|lower|too large|negative', *(f'{name}.labels' for name in FORWARD[:2])),
    (
        'points in any space',
        'without a dimension|another dimension|smaller batch|narrower|lower|bytes|half|in 0..255|negative',
        'FixedRepresentative.representatives',
    ),
    ('a nan shows in what is computed next', 'with nan', 'SmoothedModel.forward.images'),
    ('p-values of any shape', 'array without a dimension|array another dimension', *P_VALUES),
    ('p-values of any shape', 'array smaller batch|array narrower', *P_VALUES),
    ('a nan shows in the score', 'half|with nan|with inf|in 0..255|negative', 'class_scores.logits'),
    ('a nan shows in the cosine', 'half|with nan|with inf|in 0..255|negative', 'PAGLoss.__call__.targets'),
    ('a nan shows in the cosine', 'half|with nan|with inf|in 0..255|negative', *VECTOR_ARGUMENTS),
    (
        'maps of any size',
        'without a dimension|another dimension|smaller batch|narrower|lower|half|in 0..255|negative',
        'high_frequency_share.gradients',
    ),
    ('a tensor or an array', 'numpy', 'count.predictions', 'count.labels'),
    ('any labels', '[]|one less|one more|negative', 'count.void'),
    ('seeds of another batch', '[]|one less|one more', 'SmoothedModel.image_seeds'),
)


def test_every_call_is_tried():
    of_attacks = set(public_calls(mmadv.attacks)) & set(public_calls(robustness))
    check_complete(robustness, CALLS, {*EXEMPT, *of_attacks})


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('name', 'argument'), cases(CALLS))
def test_spoilt_arguments_are_refused(name, argument):
    check_refused(CALLS, RIGHT, name, argument)


def test_noise_may_leave_the_range_of_images():
    """A model that checks its first images takes noisy ones, which reach beyond [0, 1]."""
    model = mmadv.attacks.FromPixels(MODEL, mean=[0.5] * 3, std=[0.25] * 3)
    certificate = Certifier(sigma=0.5, n0=1, n=50, taus=[0.5])(model, IMAGES[0], seed=0)
    assert certificate.classes.shape == (6, 7)
