"""Results that do not depend on how a run was cut, ordered or shared, and images that fail alone."""

import os
import signal

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image
from tiny_project import runner_for_test, write_config, write_dataset

from mmadv.commands.command_line import user_sentence
from mmadv.engine.memory import is_out_of_memory
from mmadv.errors import UserError
from mmadv.evaluation import ResultStore

PGD = {'type': 'PGD', 'threat': {'type': 'Linf', 'radius': '8/255'}, 'steps': 3, 'keep': 'lowest_accuracy'}
LOOP = {'type': 'AttackTestLoop', 'attack': PGD, 'radii': ['8/255', '24/255'], 'show': 2}


class Killed(BaseException):
    """Stands for the end of the process."""


def make_runner(config, work_dir, store=None, double=True, loop=LOOP, **options):
    runner = runner_for_test(config, work_dir, loop, **options)
    if double:
        runner.model.double()
    if store is not None:
        runner.test_loop.resume_from(store)
    return runner


def finish(runner):
    runner.test()
    metric = runner.test_loop.evaluator.metrics[0]
    return metric.evaluation, metric.per_image, metric.records, runner.test_loop.examples


def assert_same(one, other):
    assert one[:3] == other[:3]
    for ours, theirs in zip(one[3], other[3], strict=True):
        ours, theirs = ours.to_arrays(), theirs.to_arrays()
        assert list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope='module')
def whole(tiny, tmp_path_factory):
    """What an uninterrupted run in float64 gives."""
    return finish(make_runner(tiny / 'config.py', tmp_path_factory.mktemp('whole')))


@pytest.mark.parametrize(
    'options',
    [{'test_dataloader.batch_size': 3}, {'test_dataloader.batch_size': 8, 'test_dataloader.num_workers': 2}],
    ids=repr,
)
def test_batch_size_and_workers_change_no_pixel_in_float64(tiny, tmp_path, whole, options):
    assert_same(finish(make_runner(tiny / 'config.py', tmp_path, **options)), whole)


def test_order_changes_no_pixel(tiny, tmp_path, whole):
    runner = make_runner(tiny / 'config.py', tmp_path)
    runner.test_loop.dataloader.dataset.indexes = [3, 5, 0, 2, 1, 4]
    assert_same(finish(runner), whole)


def test_batch_size_in_float32_moves_few_pixels(tiny, tmp_path):
    one, eight = (
        finish(make_runner(tiny / 'config.py', tmp_path / str(n), double=False, **{'test_dataloader.batch_size': n}))
        for n in (1, 8)
    )
    for first, second in zip(one[1], eight[1], strict=True):
        assert first.clean == second.clean
        for radius, values in first.attacked.items():
            if first.clean is not None:
                assert values.worst_case == pytest.approx(second.attacked[radius].worst_case, abs=2e-3)


@pytest.mark.parametrize('kills', [(0, 1), (3, 2)], ids=repr)
def test_a_run_killed_anywhere_goes_on_to_the_same_result(tiny, tmp_path, whole, monkeypatch, kills):
    """Each number is how many images a session finishes before it is killed while it writes the next one."""
    append = ResultStore.append
    done = 0
    for session, images in enumerate(kills):
        store = ResultStore(tmp_path / 'store', {'run': 1})
        left = [images]

        def torn(self, record, left=left, cut=1 + session):
            if left[0] == 0:
                append(self, record)
                self.close()
                newest = max(self.folder.glob('records-*'))
                newest.write_bytes(newest.read_bytes()[:-cut])
                raise Killed
            left[0] -= 1
            append(self, record)

        size = {'test_dataloader.batch_size': 1 + session}
        runner = make_runner(tiny / 'config.py', tmp_path / f'{session}', store, **size)
        assert runner.test_loop.done <= done
        with monkeypatch.context() as patch:
            patch.setattr(ResultStore, 'append', torn)
            with pytest.raises(Killed):
                runner.test()
        done += images
        assert len(ResultStore(tmp_path / 'store', {'run': 1}).read()) == done
    store = ResultStore(tmp_path / 'store', {'run': 1})
    runner = make_runner(tiny / 'config.py', tmp_path / 'last', store, **{'test_dataloader.batch_size': 3})
    assert done - 1 <= runner.test_loop.done <= done  # an image to be shown that was not drawn yet is done again
    assert_same(finish(runner), whole)
    again = make_runner(tiny / 'config.py', tmp_path / 'again', ResultStore(tmp_path / 'store', {'run': 1}))
    assert again.test_loop.missing == [] and len(again.test_loop.dataloader.dataset) == 0
    assert_same(finish(again), whole)


def test_a_shared_sweep_that_was_killed_goes_on_to_the_same_result(tiny, tmp_path, interrupted):
    """An image is stored with all of its radii, so the smaller radius is there for the larger one."""
    loop = {**LOOP, 'attack': {**PGD, 'random_start': True}, 'radii': ['24/255', '8/255'], 'sweep': 'shared', 'show': 0}
    expected = finish(make_runner(tiny / 'config.py', tmp_path / 'whole', loop=loop))
    runner = make_runner(tiny / 'config.py', tmp_path / 'cut', ResultStore(tmp_path / 'store', {'run': 1}), loop=loop)
    with interrupted(2):
        runner.test()
    store = ResultStore(tmp_path / 'store', {'run': 1})
    runner = make_runner(tiny / 'config.py', tmp_path / 'last', store, loop=loop, **{'test_dataloader.batch_size': 3})
    assert runner.test_loop.done == 2
    assert_same(finish(runner), expected)


def test_an_image_that_was_removed_is_left_out_and_named(tiny, tmp_path):
    """The images after it have other indexes then."""
    write_dataset(tmp_path / 'data')
    config = write_config(tmp_path / 'config.py', tmp_path / 'data')
    (tmp_path / 'trained.pth').symlink_to(tiny / 'trained.pth')
    store = ResultStore(tmp_path / 'out' / 'store', {})
    make_runner(config, tmp_path / '1', store, loop={**LOOP, 'limit': 3}).test()  # images 0, 2 and 4
    for folder in ('images', 'labels'):
        (tmp_path / 'data' / folder / '2.png').unlink()
    loop = {**LOOP, 'show': 0}
    runner = make_runner(config, tmp_path / '2', ResultStore(store.folder, {}), loop=loop)
    assert runner.test_loop.removed == ['2.png'] and runner.test_loop.done == 2
    assert runner.test_loop.dataloader.dataset.indexes == [1, 2, 4]  # of 1.png, 3.png and 5.png
    resumed = finish(runner)
    assert (
        '1 image that this run began with is no longer in the data and in no number: 2.png' in runner.test_loop.caveats
    )
    assert_same(resumed, finish(make_runner(config, tmp_path / '3', loop=loop)))
    again = make_runner(config, tmp_path / '4', ResultStore(store.folder, {}), loop=loop)
    assert again.test_loop.missing == []
    for path in (tmp_path / 'data/images').iterdir():
        path.rename(path.with_stem(f'1{path.stem}'))
    for path in (tmp_path / 'data/labels').iterdir():
        path.rename(path.with_stem(f'1{path.stem}'))
    with pytest.raises(UserError, match=r'started with other images: the data has none of its 6 images'):
        make_runner(config, tmp_path / '5', ResultStore(store.folder, {}), loop=loop)


def test_a_changed_image_or_label_is_refused(tiny, tmp_path):
    write_dataset(tmp_path / 'data')
    config = write_config(tmp_path / 'config.py', tmp_path / 'data')
    (tmp_path / 'trained.pth').symlink_to(tiny / 'trained.pth')
    store = ResultStore(tmp_path / 'out' / 'store', {})
    make_runner(config, tmp_path / '1', store, loop={'type': 'AttackTestLoop', 'limit': 3}).test()
    label = tmp_path / 'data/labels/2.png'
    pixels = np.array(Image.open(label))
    pixels[5, 5] = 255 - pixels[5, 5]
    Image.fromarray(pixels).save(label)
    with pytest.raises(UserError, match=r'started with other images: 2.png \(number 2\) or its label has changed'):
        make_runner(config, tmp_path / '2', store)
    with pytest.raises(UserError, match='takes AttackMetric or EnsembleMetric alone'):
        runner = runner_for_test(config, tmp_path / '3', LOOP, [{'type': 'AttackMetric'}, {'type': 'IoUMetric'}])
        runner.test_loop.resume_from(store)


def test_images_that_do_not_fit_together_are_split_and_said_once(tiny, tmp_path, whole, capsys):
    runner = make_runner(tiny / 'config.py', tmp_path, **{'test_dataloader.batch_size': 8})
    sizes = []

    def little_memory(module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory.')

    runner.model.backbone.register_forward_pre_hook(little_memory)
    assert_same(finish(runner), whole)
    assert sizes[:3] == [3, 2, 1] and max(sizes[3:]) == 1
    assert capsys.readouterr().err.count('3 images do not fit into memory together') == 1


def test_one_image_alone_that_does_not_fit_ends_the_run(tiny, tmp_path):
    runner = make_runner(tiny / 'config.py', tmp_path, **{'test_dataloader.batch_size': 2})

    def no_memory(module, inputs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    runner.model.backbone.register_forward_pre_hook(no_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        runner.test()
    assert user_sentence(caught.value).startswith('out of memory ([enforce fail] DefaultCPUAllocator')
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(RuntimeError('shapes differ'))


@pytest.mark.parametrize('during', ['clean', 'attack'])
def test_an_image_that_gives_nan_fails_alone_and_by_name(tiny, tmp_path, whole, capsys, during):
    runner = make_runner(tiny / 'config.py', tmp_path, **{'test_dataloader.batch_size': 8})
    victim = torch.from_numpy(np.array(Image.open(tiny / 'data/images/2.png'))).permute(2, 0, 1).double()

    def broken(module, inputs, outputs):
        pixels = inputs[0] * 60 + 127.5
        near = torch.stack([(image[:, :32, :32] - victim).abs().max() for image in pixels])
        hit = (near < 25) if during == 'clean' else (near < 25) & (near > 1)
        return tuple(output.masked_fill(hit.view(-1, 1, 1, 1), float('nan')) for output in outputs)

    runner.model.backbone.register_forward_hook(broken)
    evaluation, per_image, records, _ = finish(runner)
    where = 'clean image 2.png (iteration 0)' if during == 'clean' else 'image 2.png at iteration'
    (failed,) = evaluation.failed
    assert failed.image == '2.png' and where in failed.reason
    assert f'failed: {failed.reason}' in capsys.readouterr().err
    others = [n for n in range(6) if n != 2]
    assert per_image == [whole[1][n] for n in others] and list(records) == [whole[2][n] for n in others]


@TRANSFORMS.register_module()
class LoseWorker(BaseTransform):
    """Kills the process that loads the image."""

    def transform(self, results):
        if '3.png' in results['img_path']:
            os.kill(os.getpid(), signal.SIGKILL)
        return results


def test_a_lost_worker_is_a_sentence_and_what_was_done_is_kept(tiny, tmp_path):
    extra = "test_dataloader['dataset']['pipeline'] = [dict(type='LoseWorker'), *pipeline]\n"
    config = write_config(tmp_path / 'config.py', tiny / 'data', extra)
    (tmp_path / 'trained.pth').symlink_to(tiny / 'trained.pth')
    store = ResultStore(tmp_path / 'store', {})
    options = {'test_dataloader.num_workers': 1, 'test_dataloader.prefetch_factor': 1}
    with pytest.raises(RuntimeError, match='DataLoader worker') as caught:
        make_runner(config, tmp_path, store, loop={'type': 'AttackTestLoop'}, **options).test()
    assert 'a process that loads data was lost' in user_sentence(caught.value)
    assert set(store.read()) <= {0, 1, 2}
