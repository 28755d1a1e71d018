"""What own code must do in each role: try it on two images, before anything is trained.

Every function yields faults, as sentences that start with what the user's code is. The components of ferhpo and its
libraries need no trial: their arguments are checked when they are built.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ferhpo.components import own_code
from ferhpo.components.build import as_function, instantiate
from ferhpo.components.bundle import BundleError, bundle
from ferhpo.components.kinds import is_estimator
from ferhpo.errors import ConfigError, FerhpoError, Infeasible

if TYPE_CHECKING:
    import torch

    from ferhpo.data.dataset import FaceData

NUM_IMAGES, NUM_CLASSES = 2, 7
PASSED = {  # arguments besides the keys of the section
    "model": "in_channels, num_classes, image_size",
    "loss": "weight and label_smoothing (if it has these arguments)",
    "lr_schedule": "the optimizer, num_epochs, steps_per_epoch",
    "optim": "the parameters",
    "sampler": "seed (if it has this argument)",
    "scheduler": "metric and mode (if it stops trials)",
    "metrics": "an Evaluation",
}


def is_own(section: Any) -> bool:
    """Return whether the `_target_` of a section is own code."""
    target = section.get("_target_") if isinstance(section, Mapping) else None
    return isinstance(target, str) and "." in target and own_code.trusts(target.rpartition(".")[0])


def how_to_add_target(role: str, option: str | None) -> str:
    """Return the remedy for a section without a `_target_`. option: the name of its file, if it has one."""
    where = f" to {role}/{option}.yaml" if option else ""
    return f"add one{where}, the dotted name of a class or function, e.g. _target_: my_{role}.{role.title()}"


def network_faults(section: Mapping[str, Any], channels: int, image_size: int) -> Iterator[str]:
    """Try a network: logits [N, classes] for images [N, C, H, W], gradients, and a single image in evaluation mode."""
    import torch

    what = f"model: {section['_target_']}"
    shape = (NUM_IMAGES, channels, image_size, image_size)
    try:
        network = instantiate(section, "model", in_channels=channels, num_classes=NUM_CLASSES, image_size=image_size)
        called = f"{what} with images {list(shape)}"
        logits = network(torch.rand(shape))
        if fault := _shape_fault(logits, (NUM_IMAGES, NUM_CLASSES)):
            yield f"{called} returned {fault}; it must return logits, float [N, num_classes]"
            return
        if not logits.requires_grad:
            yield f"{called} returned logits without gradients; they must depend on its parameters, without no_grad"
            return
        logits.sum().backward()
        with torch.inference_mode():
            single = network.eval()(torch.rand(1, *shape[1:]))
        if fault := _shape_fault(single, (1, NUM_CLASSES)):
            yield f"{what} with one image returned {fault}; it must return logits, float [1, num_classes]"
        if own_code.is_file(module := section["_target_"].rpartition(".")[0]):
            bundle([module])
    except Infeasible:
        raise
    except BundleError as error:
        yield f"{what} cannot be exported to the registry: {error}"
    except Exception as error:  # the user's code
        yield raised(f"{what}, with images {list(shape)},", error, "model")


def faults(section: str, config: Mapping[str, Any], channels: int, image_size: int) -> Iterator[str] | None:
    """Return the faults of a section whose component is own code; None if there is nothing to try.

    image_size: in pixels; the side of the images before augmentation. Data are not read: see `reader_faults`
    """
    from ferhpo.training.settings import TrainerSettings, make_loss

    values = config[section]
    if not is_own(values):
        return None
    if section == "model" and not is_estimator(values):
        return network_faults(values, channels, int(config["augment"].get("crop") or image_size))
    if section == "augment":
        return augment_faults(values, channels, image_size)
    if section == "lr_schedule":
        return schedule_faults(values, int(config["trainer"]["max_epochs"]))
    if section == "loss":
        settings = {key: value for key, value in config["trainer"].items() if key != "_target_"}
        return loss_faults(values, lambda: make_loss(as_function(values, "loss"), TrainerSettings(**settings), None))
    return None


def read_data(name: str, section: Mapping[str, Any], for_training: bool = True) -> "FaceData":
    """Read the data set of a section.

    name: of the configuration; for_training: whether there must be training and validation images
    Raises ConfigError if own code fails or returns anything else than a valid FaceData.
    """
    from ferhpo.data.dataset import FaceData, faults_of

    what = f"data: {section['_target_']}"
    try:
        data = as_function(section, "data")()
    except FerhpoError:
        raise
    except Exception as error:  # the user's code
        if not is_own(section):
            raise
        raise ConfigError(name, [raised(what, error, "data")]) from None
    if not isinstance(data, FaceData):
        rule = "it must return a FaceData (see ferhpo.data.dataset.face_data)"
        raise ConfigError(name, [f"{what} returned {type(data).__name__}; {rule}"])
    if is_own(section):
        faults = list(faults_of(data)) or (list(_empty_splits(data, section)) if for_training else [])
        if faults:
            raise ConfigError(name, [f"{what} returned a FaceData in which {fault}" for fault in faults])
    return data


def _empty_splits(data: "FaceData", section: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for each split that a training needs and that has no image; folds need no own validation images."""
    from ferhpo.data.dataset import TRAIN, VAL

    for name, code in (("train", TRAIN), ("val", VAL)):
        if not (data.split == code).any() and not (section.get("folds") and name == "val"):
            yield (
                f"split has no {name} image; a training needs at least one; mark images with {name.upper()} ({code}), "
                "e.g. with ferhpo.data.splits.assign_splits"
            )


def metric_faults(name: str, section: Mapping[str, Any]) -> Iterator[str]:
    """Try a metric: it returns one finite number for the predictions of a validation split."""
    import math

    import numpy as np
    import torch

    from ferhpo.scoring.predict import Evaluation

    what = f"metrics.{name}: {section['_target_']}"
    labels = np.arange(2 * NUM_CLASSES) % NUM_CLASSES
    probabilities = np.full((len(labels), NUM_CLASSES), 1 / (2 * NUM_CLASSES), np.float32)
    probabilities[np.arange(len(labels)), (labels + labels // 3) % NUM_CLASSES] += 0.5
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for true, predicted in zip(labels, probabilities.argmax(1), strict=True):
        confusion[true, predicted] += 1
    found = Evaluation(1.0, 0.5, 0.5, confusion, probabilities, labels, np.arange(len(labels)))
    rule = "it must return one finite number for an Evaluation"
    try:
        value = as_function(section, "metrics")(found)
    except Exception as error:  # the user's code
        yield f"{raised(what, error, 'metrics')}; {rule}"
        return
    try:
        is_number = not isinstance(value, str | bytes) and math.isfinite(float(value))
    except (TypeError, ValueError):
        is_number = False
    if not is_number:
        yield f"{what} returned {value!r:.60}; {rule}"


def loss_faults(section: Mapping[str, Any], make: Callable[[], "torch.nn.Module"]) -> Iterator[str]:
    """Try a loss: a finite scalar with gradients, for logits [N, classes] and labels [N]."""
    import torch

    what = f"loss: {section['_target_']}"
    logits = torch.randn(NUM_IMAGES, NUM_CLASSES, requires_grad=True)
    try:
        value = make()(logits, torch.arange(NUM_IMAGES))
        if fault := _shape_fault(value, ()):
            yield f"{what} returned {fault}; it must return a scalar for logits [N, classes] and labels int64 [N]"
        elif not value.requires_grad:
            yield f"{what} returned a loss without gradients; it must depend on the logits"
    except Exception as error:  # the user's code
        yield raised(f"{what}, with logits [N, classes] and labels int64 [N],", error, "loss")


def augment_faults(section: Mapping[str, Any], channels: int, image_size: int) -> Iterator[str]:
    """Try an augmentation: images uint8 [N, C, H, H] and a row of noise each to float [N, C, size, size] in 0..1."""
    import numpy as np
    import torch

    what = f"augment: {section['_target_']}"
    try:
        augment = instantiate(section, "augment")
        size = augment.output_size(image_size)
        noise = augment.noise(NUM_IMAGES, image_size, np.random.default_rng(0))
        images = torch.randint(0, 256, (NUM_IMAGES, channels, image_size, image_size), dtype=torch.uint8)
        given = images.clone()
        changed = augment(images, noise)
        if fault := _shape_fault(changed, (NUM_IMAGES, channels, size, size)):
            yield f"{what} returned {fault}; it must return images, float [N, C, size, size] in 0..1"
        elif not torch.equal(images, given):
            yield f"{what} wrote into its argument, which all trials share; it must return new images"
    except Exception as error:  # the user's code
        yield raised(what, error, "augment")


def schedule_faults(section: Mapping[str, Any], num_epochs: int) -> Iterator[str]:
    """Try a learning rate schedule: it returns a Schedule."""
    import torch

    from ferhpo.training.schedules import Schedule

    what = f"lr_schedule: {section['_target_']}"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        schedule = instantiate(section, "lr_schedule", optimizer, num_epochs=num_epochs, steps_per_epoch=2)
    except Exception as error:  # the user's code
        yield raised(what, error, "lr_schedule")
        return
    if not isinstance(schedule, Schedule):
        yield f"{what} returned {type(schedule).__name__}; it must return a ferhpo.training.schedules.Schedule"


def named_faults(role: str, name: str, section: Mapping[str, Any]) -> list[str]:
    """Return the faults of a metric or callback that is own code. Panels and exports have nothing to be tried on."""
    if role == "metrics" and is_own(section):
        return list(metric_faults(name, section))
    if role == "callbacks" and is_own(section):
        try:
            instantiate(section, "callbacks")
        except Exception as error:  # the user's code
            return [raised(f"callbacks.{name}: {section['_target_']}", error, "callbacks")]
    return []


def _shape_fault(value: Any, shape: tuple[int, ...]) -> str:
    """Return what a value is, if it is not a float tensor of this shape; otherwise an empty string."""
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if not value.is_floating_point() or tuple(value.shape) != shape:
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return ""


def raised(what: str, error: Exception, role: str) -> str:
    """Return the fault of own code that raised an exception; if it was called with other arguments, what is passed."""
    is_call = isinstance(error, TypeError) and "argument" in str(error) and not own_code.place(error)
    suffix = f"; ferhpo passes {passed(role)}, which it must take" if is_call else ""
    return f"{what} raised {own_code.reason(error)}{suffix}"


def passed(role: str) -> str:
    """Return the arguments with which ferhpo calls a component."""
    return f"{PASSED[role]} and the keys of its section" if role in PASSED else "the keys of its section"
