"""A first look at a project's tasks: their images, and the labels that they bring along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backend.images.address import compact_address, store_address
from backend.inference.task_images import task_data
from backend.labels.config import LabelConfig
from backend.labelstudio.client import LabelStudioClient
from backend.projects.export.collecting import image_addresses
from backend.projects.export.splits import Shares, SplitFile, SplitImage, Splits, split_images
from backend.storage.store import Store


@dataclass(frozen=True)
class Survey:
    """What all tasks of a project have.

    Attributes:
        images: of all tasks, without content keys.
        addresses: image -> its name in the store.
        labels: (control name, label key) of all labels, in the order of the config, then as tasks
            bring them along.
    """

    images: Sequence[SplitImage]
    addresses: dict[SplitImage, str]
    labels: Sequence[tuple[str, str]]


def survey(
    studio: LabelStudioClient, number: int, config: LabelConfig, label_studio_url: str
) -> Survey:
    """Look at all tasks of a project.

    Raises:
        StudioError: Label Studio cannot be asked.
    """
    addresses: dict[SplitImage, str] = {}
    labels = dict.fromkeys(config_labels(config))
    own = [control for control in config.controls if control.has_own_labels]
    for task in studio.tasks.iterate(number):
        for address, source in image_addresses(task, config.controls).items():
            image = SplitImage(int(task["id"]), compact_address(address), "")
            addresses[image] = store_address(source, label_studio_url)
        for control in own:
            here = control.for_task(task_data(task))
            labels |= dict.fromkeys((control.name, label.key) for label in here.labels)
    return Survey(list(addresses), addresses, list(labels))


def config_labels(config: LabelConfig) -> list[tuple[str, str]]:
    """(control name, label key) of all labels that stand in the labeling config."""
    return [(control.name, label.key) for control in config.controls for label in control.labels]


@dataclass(frozen=True)
class ProjectSplits:
    """The splits of a project's images.

    Attributes:
        splits: of all its images.
        not_embedded: images of which no near-duplicate can be found.
    """

    splits: Splits
    not_embedded: int


def split_project(
    found: Survey, store: Store, shares: Shares, near: float, before: SplitFile
) -> ProjectSplits:
    """Split a project's images by what the store knows of them.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = store.vectors.keys_of(found.addresses.values())
    embeddings = store.vectors.images_of_any(keys.values())
    images = [replace(image, key=keys.get(found.addresses[image], "")) for image in found.images]
    missing = sum(image.key not in embeddings for image in images)
    return ProjectSplits(split_images(images, embeddings, near, shares, before), missing)
