"""Functions that build, check and restrict datasets; their errors name the folder or the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from mmadv.errors import UserError
from mmadv.printing import shown

# Keys of a sample that hold paths -> kind of the file.
FILES = {'img_path': 'image', 'seg_map_path': 'label'}
# Keys of a config whose datasets are scored class by class.
SCORED = ('test_dataloader', 'val_dataloader')
# Suffixes of images that OpenCV and Pillow read; only the pipeline's own loader checks other files.
KNOWN_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
# Pillow's modes of files with at most 8 bits per value.
BYTE_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK')


def dataset_of(dataloader: Any, where: str, owner: str) -> Any:
    """Returns the dataset of a dataloader's config, as ``build_dataset`` does.

    Args:
        dataloader: config with 'dataset'.
        where: the config's key, such as 'test_dataloader'.
        owner: the loop that needs the dataset, for messages.

    Raises:
        UserError: the dataloader is not a config with 'dataset', or the dataset cannot be built.
    """
    if not isinstance(dataloader, Mapping) or 'dataset' not in dataloader:
        raise UserError(f"{where} must be a config with 'dataset' for {owner}; found {shown(dataloader)}")
    return build_dataset(dataloader['dataset'], f'{where}.dataset')


def build_dataset(config: Any, where: str) -> Any:
    """Returns the dataset of a config, ready to be read.

    Args:
        config: dataset config, or a dataset, which is only checked.
        where: the config's key, for error messages.

    Raises:
        UserError: a folder or list is missing or empty, or the config cannot be built.
    """
    try:
        dataset = DATASETS.build(config) if isinstance(config, Mapping) else config
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    except UserError:
        raise
    except Exception as error:
        problem = _folder_problem(config) if isinstance(config, Mapping) else None
        if problem is None:
            problem = f'cannot be built: {type(error).__name__}: {first_line(error)}'
        raise UserError(f'{where}: {problem}') from error
    if len(dataset) == 0:
        problem = _folder_problem(config) if isinstance(config, Mapping) else None
        raise UserError(f'{where}: {problem or "holds no images; check its folders and suffixes"}')
    if where.startswith(SCORED):
        _check_classes(dataset, where)
    for part in leaves(dataset):
        _check_zero_label(part, where)
        _check_single_images(part, where)
        if callable(getattr(part, 'pipeline', None)) and not isinstance(part.pipeline, NamedErrors):
            part.pipeline = NamedErrors(part.pipeline)
    return dataset


def _check_zero_label(dataset: Any, where: str) -> None:
    """Raises UserError if dataset and pipeline disagree on label 0; mmseg's loader would stop on it."""
    reduced = getattr(dataset, 'reduce_zero_label', None)
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ():
        loaded = getattr(transform, 'reduce_zero_label', None)
        if reduced is not None and loaded is not None and loaded != reduced:
            raise UserError(
                f'{where}: reduce_zero_label is {reduced} in the dataset and {loaded} in {type(transform).__name__}; '
                'take it out of the pipeline, which follows the dataset'
            )


def leaves(dataset: Any) -> Iterator[Any]:
    """Yields the datasets that read files, inside any nesting of wrappers."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is None:
        yield dataset
        return
    for part in inner if isinstance(inner, Sequence) else [inner]:
        yield from leaves(part)


class NamedErrors:
    """A pipeline that raises a UserError with the file's name if it cannot read a file.

    Other errors stay unchanged, because they are defects of the pipeline.

    Args:
        pipeline: the pipeline of the samples.

    Attributes:
        instead: path of an image -> path of the image that is read in its place.
    """

    def __init__(self, pipeline: Callable[[dict], Any]) -> None:
        self.pipeline = pipeline
        loaders = [getattr(type(step), '_load_seg_map', None) for step in getattr(pipeline, 'transforms', [])]
        # mmseg's own loader casts label maps to bytes; other loaders may not.
        self._loads_bytes = LoadAnnotations._load_seg_map in loaders
        self.instead: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        if name == 'pipeline':  # while unpickling
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def __call__(self, sample: dict) -> Any:
        if sample.get('img_path') in self.instead:
            sample = {**sample, 'img_path': self.instead[sample['img_path']]}
        paths = {kind: sample[key] for key, kind in FILES.items() if isinstance(sample.get(key), str)}
        if self._loads_bytes and 'label' in paths:
            check_fits_a_byte(paths['label'])
        try:
            return self.pipeline(sample)
        except UserError:
            raise
        except Exception as error:
            for kind, path in paths.items():
                problem = _file_problem(path)
                if problem:
                    raise UserError(f'{kind} {path} {problem}; repair it, or remove it from the dataset') from error
            raise


def check_fits_a_byte(path: str) -> None:
    """Raises UserError if a label map has a value outside [0, 255].

    mmseg's loader casts labels to bytes, so such a value would become another class. The usual files have 8 bits; for
    them, this function reads only the header.
    """
    try:
        with Image.open(path) as image:
            if image.mode in BYTE_MODES:
                return
            values = np.asarray(image)
    except Exception:  # a damaged file can fail in any way; the pipeline's own error is raised later
        return
    wrong = values[(values < 0) | (values > 255)]
    if wrong.size:
        raise UserError(
            f'label {path} has more than 8 bits and holds the value {wrong[0]:g}, which LoadAnnotations would take '
            f'for class {int(wrong[0]) % 256}; convert it to 8 bits'
        )


class Selection(Dataset):
    """Some samples of a dataset, each with its index, name and checksum in the meta data.

    ``sample_idx`` is the index in the whole dataset. ``image_name`` is the image's path below the dataset's image
    folder, or the index if the sample has no path. ``digest`` is a checksum of the sample's name and content.
    If several image folders hold files of the same name, the name is the path below the common parent of all images.

    Args:
        dataset: the whole dataset.
        indexes: indexes of the samples, in order.
    """

    def __init__(self, dataset: Any, indexes: Sequence[int]) -> None:
        self.dataset = dataset
        self.indexes = list(indexes)
        self.metainfo = dataset.metainfo
        folders = [getattr(part, 'data_prefix', {}).get('img_path') for part in leaves(dataset)]
        self.folders = [os.path.abspath(folder) for folder in folders if folder]
        self._names = _unique_names(list(_image_paths(dataset)), self.folders)

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, item: int) -> dict:
        index = self.indexes[item]
        data = self.dataset[index]
        name = self._name(data['data_samples'].metainfo.get('img_path')) or str(index)
        data['data_samples'].set_metainfo(
            {'sample_idx': index, 'image_name': name, 'digest': self._digest(index, data)}
        )
        return data

    def digest(self, index: int) -> str:
        """Returns the checksum of a sample by its index in the whole dataset; it decodes no image file."""
        return self._digest(index, None)

    def _digest(self, index: int, data: dict | None) -> str:
        """Returns the checksum of a sample's name and files, or of its name, pixels and labels if it has no files."""
        info = _info(self.dataset, index)
        paths = [info[key] for key in FILES if isinstance(info.get(key), str)]
        digest = hashlib.blake2b((self._name(info.get('img_path')) or str(index)).encode(), digest_size=12)
        if paths and all(os.path.isfile(path) for path in paths):
            parts = (Path(path).read_bytes() for path in paths)
        else:
            data = self.dataset[index] if data is None else data
            tensors = [data['inputs'], *(item.data for item in _pixel_data(data['data_samples']))]
            parts = (tensor.contiguous().numpy().tobytes() for tensor in tensors)
        for part in parts:
            digest.update(hashlib.blake2b(part).digest())
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """Returns the name of an image by its index in the whole dataset."""
        return self._name(_info(self.dataset, index).get('img_path')) or str(index)

    def _name(self, path: str | None) -> str | None:
        if path is None:
            return None
        return self._names.get(path) or _short_name(path, self.folders)

    @property
    def names(self) -> dict[str, int]:
        """Returns name -> index in the whole dataset, for each image; a sample without a file is named by its index."""
        return {self.name(index): index for index in self.indexes}

    def removed(self, names: Iterable[str]) -> list[str]:
        """Returns the given names that no image of the whole dataset has, sorted."""
        unknown = set(names) - self.names.keys()
        if unknown:
            unknown -= {self.name(index) for index in range(len(self.dataset))}
        return sorted(unknown)

    def check_files(self) -> None:
        """Raises UserError for the first image or label file that is missing, empty or cut short.

        It checks only files whose folder exists in the file system. The processes of a run share the check for
        damaged files: each process checks a part of the files.
        """
        files: list[tuple[str, str]] = []
        for index in self.indexes:
            info = _info(self.dataset, index)
            for key, kind in FILES.items():
                path = info.get(key)
                if isinstance(path, str) and os.path.isdir(os.path.dirname(path) or '.'):
                    if not os.path.isfile(path):
                        raise UserError(f'{kind} {path} does not exist; repair it, or remove it from the dataset')
                    if not os.path.getsize(path):
                        raise UserError(f'{kind} {path} is empty; repair it, or remove it from the dataset')
                    files.append((kind, path))
        share = files[get_rank() :: get_world_size()]
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            problems = pool.map(_damage, [path for _, path in share])
            for (kind, path), problem in zip(share, problems, strict=True):
                if problem:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise UserError(f'{kind} {path} {problem}; repair it, or remove it from the dataset')

    def load_instead(self, index: int, file: Path) -> Any:
        """Returns the inputs of a sample if its pipeline reads another image file in place of the sample's own file.

        Args:
            index: index of the sample in the whole dataset.
            file: the other image file.

        Returns:
            (C, h, w) tensor; None if the sample is not read from a file.
        """
        path = _info(self.dataset, index).get('img_path')
        pipelines = [part.pipeline for part in leaves(self.dataset) if isinstance(part.pipeline, NamedErrors)]
        if path is None or not os.path.isfile(path) or not pipelines:
            return None
        try:
            for pipeline in pipelines:
                pipeline.instead = {path: str(file)}
            return self.dataset[index]['inputs']
        finally:
            for pipeline in pipelines:
                pipeline.instead = {}


def _info(dataset: Any, index: int) -> Mapping[str, Any]:
    return dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}


def _image_paths(dataset: Any) -> Iterator[str]:
    for index in range(len(dataset)):
        path = _info(dataset, index).get('img_path')
        if path is not None:
            yield path


def _short_name(path: str, folders: Sequence[str]) -> str:
    """Returns a path relative to the first folder that holds it, or the file's name if no folder does."""
    path = os.path.abspath(path)
    inside = [folder for folder in folders if Path(path).is_relative_to(folder)]
    return Path(os.path.relpath(path, inside[0])).as_posix() if inside else Path(path).name


def _unique_names(paths: Sequence[str], folders: Sequence[str]) -> dict[str, str]:
    """Returns path -> unique name, for the images whose short name another image has too."""
    known: dict[str, set[str]] = {}
    for path in set(paths):
        known.setdefault(_short_name(path, folders), set()).add(os.path.abspath(path))
    shared = {name for name, files in known.items() if len(files) > 1}
    if not shared:
        return {}
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    ambiguous = {path for path in paths if _short_name(path, folders) in shared}
    return {path: Path(os.path.relpath(os.path.abspath(path), common)).as_posix() for path in ambiguous}


def _pixel_data(sample: Any) -> list[Any]:
    return [item for _, item in sorted(sample.items()) if hasattr(item, 'data')]


def evenly_spaced(size: int, limit: int | None) -> list[int]:
    """Returns ``limit`` indexes spread evenly over ``size``; without a limit it returns all indexes.

    Neighbours in a folder are often frames of one video, so the first images alone would show only one scene.

    >>> evenly_spaced(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or limit >= size:
        return list(range(size))
    return [i * size // limit for i in range(limit)]


def classes_differ(predicted: int, named: int) -> str:
    """Returns the message for a model whose number of classes differs from that of its dataset."""
    if named == 1:
        return (
            f'the dataset names 1 class, and the model tells {predicted} apart; name the background too, as in '
            "metainfo=dict(classes=('background', '...')): a model with out_channels=1 predicts the classes 0 and 1"
        )
    return (
        f'the model predicts {predicted} classes, the dataset has {named}; make num_classes of the decode head and the '
        'classes of the dataset agree'
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_classes(dataset: Any, where: str) -> None:
    """Raises UserError if a dataset that is scored names no classes."""
    if not getattr(dataset, 'metainfo', {}).get('classes'):
        raise UserError(
            f"{where}: {type(dataset).__name__} names no classes; set metainfo=dict(classes=('...', '...'))"
        )


def _check_single_images(dataset: Any, where: str) -> None:
    """Raises UserError if a pipeline makes several versions of every image."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or []
    if any(type(step).__name__ == 'TestTimeAug' for step in steps):
        raise UserError(
            f'{where}: the pipeline ends in TestTimeAug, which makes several versions of every image; an attack needs '
            'one: use the pipeline without it'
        )


def _file_problem(path: str) -> str | None:
    if not os.path.exists(path):
        return 'does not exist'
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    if not content.size or cv2.imdecode(content, cv2.IMREAD_UNCHANGED) is None:
        return 'is not a readable image (empty, cut short or of another format)'
    return None


def _damage(path: str) -> str | None:
    """Returns the problem of an image file; None if the file is complete, or if Pillow does not know the format.

    OpenCV fills the missing end of a JPEG with grey, so a JPEG that is cut short looks complete to it.
    """
    try:
        with Image.open(path) as image:
            if image.format == 'PNG':
                image.verify()  # checksums of all parts, without unpacking them
            else:
                image.draft(image.mode, (image.width // 8, image.height // 8))  # faster decoding of JPEG files
                image.load()
    except UnidentifiedImageError:
        known = os.path.splitext(path)[1].lower() in KNOWN_SUFFIXES
        return _file_problem(path) if known else None
    except Image.DecompressionBombError:
        return None
    except Exception as error:  # a damaged file can fail in any way
        return f'is not a readable image, or is cut short ({first_line(error)})'
    return None


def _folder_problem(config: Mapping) -> str | None:
    """Returns the problem of the folders that a dataset config names, wrapped configs included; None for no problem."""
    for key in ('dataset', 'datasets'):
        inner = config.get(key)
        for part in [inner] if isinstance(inner, Mapping) else inner if isinstance(inner, (list, tuple)) else []:
            problem = _folder_problem(part) if isinstance(part, Mapping) else None
            if problem:
                return problem
    root = config.get('data_root') or ''
    if root and not os.path.isdir(root):
        return f'dataset folder {root} does not exist; set data_root to where the data is'
    prefixes = config.get('data_prefix') or {}
    for prefix in prefixes.values():
        if isinstance(prefix, str) and not os.path.isdir(os.path.join(root, prefix)):
            return f'dataset folder {os.path.join(root, prefix)} does not exist; set data_root and data_prefix'
    ann_file = config.get('ann_file') or ''
    if ann_file and not os.path.exists(os.path.join(root, ann_file)):
        return f'the list of images {os.path.join(root, ann_file)} does not exist; set ann_file'
    folder = os.path.join(root, prefixes.get('img_path') or '')
    if folder and not any(files for _, _, files in os.walk(folder)):
        return f'dataset folder {folder} is empty; put the images there'
    if folder and config.get('img_suffix') and not ann_file:
        suffix = config['img_suffix']
        if not any(name.endswith(suffix) for _, _, files in os.walk(folder) for name in files):
            return f"dataset folder {folder} holds no '*{suffix}' images; check img_suffix"
    return None
