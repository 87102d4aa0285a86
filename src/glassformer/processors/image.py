"""Images to arrays (channels, height, width) and back.

    processor = ImageProcessor(size=(28, 28), mean=(0.5,), std=(0.5,))      # one mean: grey; three: RGB
    pixels_CHW = processor.encode("seven.png")
    processor.save("runs/NAME/model")       # preprocessor_config.json, as transformers' ViTImageProcessor writes it

An image goes through these steps: turned by its EXIF tag, laid on `background` where it is transparent, converted
to grey or RGB, resized, scaled to 0..1 and normalised: (x - mean) / std.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, MissingExtraError, ModelFolderError, UsageError, one_line
from glassformer.files import disk_errors, write_json
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
MAX_BYTES = 256 << 20  # of an image file
MAX_PIXELS = 1 << 26  # of an image before it is resized: a small file can hold an enormous image
MAX_SIDE = 8192  # of what it is resized to
BILINEAR = 2  # of PIL.Image.Resampling; also transformers' default for ViT
_TYPES = tuple(
    f"{name}{end}" for name in ("ViT", "DeiT") for end in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil",
                                                           "FeatureExtractor")
)  # fmt: skip
# Steps of other image processors, which would change what a model sees.
_OTHER_STEPS = tuple(
    f"do_{step}" for step in ("pad", "thumbnail", "align_long_axis", "reduce_labels", "flip_channel_order")
)


@dataclass(frozen=True)
class ImageProcessor:
    """Images of one size, grey or RGB, as arrays of fp32.

    Attributes:
        size: height and width in pixels.
        mean, std: of each channel, of values that were scaled: one number for grey, three for RGB.
        scale: what pixels of 0..255 are multiplied with first.
        resample: how an image is resized, a number of `PIL.Image.Resampling`.
        background: from 0 (black) to 255 (white): what shows through transparent pixels.
        resize: height and width that an image is resized to before its middle, `size`, is cut out (DeiT); None: `size`.

    Raises:
        UsageError: a value is impossible.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    scale: float = 1 / 255
    resample: int = BILINEAR
    background: int = 255
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, size in (("size", self.size), ("resize", self.resize or self.size)):
            if len(size) != 2 or not all(type(n) is int and 0 < n <= MAX_SIDE for n in size):
                raise UsageError(f"{name}={size}: give height and width in pixels, each from 1 to {MAX_SIDE}")
        if self.resize is not None and (self.resize[0] < self.size[0] or self.resize[1] < self.size[1]):
            raise UsageError(f"resize={self.resize} is smaller than size={self.size}, which is cut out of it")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise UsageError(f"mean={self.mean}, std={self.std}: give one number each for grey images, three for RGB")
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale))) or min(*self.std, self.scale) <= 0:
            given = f"mean={self.mean}, std={self.std}, scale={self.scale}"
            raise UsageError(f"{given}: give finite numbers, the last two > 0")
        if type(self.resample) is not int or not 0 <= self.resample <= 5:
            raise UsageError(f"resample={self.resample} is unknown; use a number of PIL.Image.Resampling, 0 to 5")
        if type(self.background) is not int or not 0 <= self.background <= 255:
            raise UsageError(f"background={self.background}: give a number from 0 (black) to 255 (white)")

    @property
    def n_channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.mean)

    def encode(self, image: Any) -> np.ndarray:
        """The array of an image: (channels, height, width), fp32.

        Args:
            image: a path, the bytes of a file, a `PIL.Image`, or an array of uint8, (height, width) or (height, width,
                channels). Of a file with several frames the first is read.

        Raises:
            DataError: it cannot be read, is no image, or has more than `MAX_PIXELS` pixels.
            UsageError: an array of another type or shape.
            MissingExtraError: without Pillow.
        """
        prepared = _converted(_opened(image), self.n_channels, self.background)
        height, width = self.resize or self.size
        if prepared.size != (width, height):
            prepared = prepared.resize((width, height), resample=self.resample)
        if self.resize is not None:
            top, left = (height - self.size[0]) // 2, (width - self.size[1]) // 2
            prepared = prepared.crop((left, top, left + self.size[1], top + self.size[0]))
        pixels_HWC = np.asarray(prepared, dtype=np.float32).reshape(*self.size, self.n_channels)
        mean, std = np.asarray((self.mean, self.std), dtype=np.float32)
        scaled_HWC = (pixels_HWC * np.float32(self.scale) - mean) / std
        return np.ascontiguousarray(scaled_HWC.transpose(2, 0, 1))

    def encode_batch(self, images: Sequence[Any]) -> np.ndarray:
        """The arrays of several images, one above the other: (images, channels, height, width)."""
        if not len(images):
            raise UsageError("encode_batch needs at least one image")
        return np.stack([self.encode(image) for image in images])

    def decode(self, pixels_CHW: Any) -> Any:
        """The image of an array as a `PIL.Image`; values outside 0..255 are clipped."""
        array = np.asarray(pixels_CHW, dtype=np.float32)
        if array.ndim != 3 or len(array) != self.n_channels:
            raise UsageError(f"an array of shape {array.shape}: give ({self.n_channels}, height, width)")
        mean, std = np.asarray((self.mean, self.std), dtype=np.float32)
        pixels_HWC = (array.transpose(1, 2, 0) * std + mean) / np.float32(self.scale)
        whole = np.nan_to_num(pixels_HWC).round().clip(0, 255).astype(np.uint8)
        return _pillow().fromarray(whole[..., 0] if self.n_channels == 1 else whole)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        crop = {} if self.resize is None else {"do_center_crop": True, "crop_size": _as_dict(self.size)}
        config = {
            "image_processor_type": "DeiTImageProcessor" if crop else "ViTImageProcessor",
            "do_convert_rgb": self.n_channels == 3,
            "do_resize": True,
            "size": _as_dict(self.resize or self.size),
            **crop,
            "resample": self.resample,
            "do_rescale": True,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "glassformer": {"background": self.background},
        }
        write_json(Path(folder) / FILE, config)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ImageProcessor:
        """Read the preprocessor_config.json of a model folder.

        Raises:
            ModelFolderError: it is missing or damaged, or asks for a step that is not done here.
        """
        file = Path(folder) / FILE
        config = read_json(file, ModelFolderError, most=1 << 20)
        kind = config.get("image_processor_type", config.get("feature_extractor_type", "ViTImageProcessor"))
        if kind not in _TYPES:
            raise ModelFolderError(f"{file}: {one_line(repr(kind), most=60)} is not read here; {_TYPES[0]} is")
        if steps := [step for step in _OTHER_STEPS if config.get(step)]:
            raise ModelFolderError(f"{file}: sets {steps[0]}, a step that is not done here; take another model")
        own = config.get("glassformer")
        normalises, rescales = config.get("do_normalize", True), config.get("do_rescale", True)
        try:
            mean = _numbers(config.get("image_mean", (0.5, 0.5, 0.5))) if normalises else (0.0, 0.0, 0.0)
            std = _numbers(config.get("image_std", (0.5, 0.5, 0.5))) if normalises else (1.0, 1.0, 1.0)
            size = _size(config.get("size", 224))
            crops = config.get("do_center_crop", kind.startswith("DeiT"))
            return cls(
                size=_size(config.get("crop_size", 224)) if crops else size,
                resize=size if crops else None,
                mean=mean,
                std=std,
                scale=float(config.get("rescale_factor", 1 / 255)) if rescales else 1.0,
                resample=config.get("resample", BILINEAR),
                background=own.get("background", 255) if isinstance(own, dict) else 255,
            )
        except (UsageError, TypeError, ValueError, OverflowError) as error:
            raise ModelFolderError(f"{file}: {one_line(error)}; correct the file or fetch it again") from None


def load_image_processor(folder: str | os.PathLike[str]) -> ImageProcessor | None:
    """`ImageProcessor.load(folder)`, or None where the folder has none."""
    return ImageProcessor.load(folder) if (Path(folder) / FILE).is_file() else None


def _numbers(value: Any) -> tuple[float, ...]:
    """Of each channel; some files give one number for grey."""
    return tuple(map(float, value)) if isinstance(value, (list, tuple)) else (float(value),)


def _size(value: Any) -> tuple[int, int]:
    """Height and width; older files give one number for both."""
    if isinstance(value, dict):
        if value.keys() != {"height", "width"}:
            raise UsageError(f"size={one_line(value, most=60)}: height and width are read, nothing else")
        return value["height"], value["width"]
    return value, value


def _as_dict(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("reading images", "images") from None
    return Image


def _opened(image: Any) -> Any:
    """A `PIL.Image`, loaded, of bounded size and the right way up."""
    Image = _pillow()
    from PIL import ImageOps

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            expected = "uint8 (0 to 255), (height, width) or (height, width, channels)"
            raise UsageError(f"an array of {image.dtype}, shape {image.shape}: give {expected}")
        return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    where = "an image" if isinstance(image, (bytes, Image.Image)) else str(image)
    try:
        with disk_errors(where):
            if not isinstance(image, Image.Image):
                n_bytes = len(image) if isinstance(image, bytes) else Path(image).stat().st_size
                if n_bytes > MAX_BYTES:
                    raise DataError(f"{where}: {n_bytes >> 20} MiB; an image file may have {MAX_BYTES >> 20}")
                image = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
            width, height = image.size
            if not 0 < width * height <= MAX_PIXELS:
                raise DataError(f"{where}: {width} x {height} pixels, at most {MAX_PIXELS:,} are read: make it smaller")
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file; check the path") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not an image that Pillow reads, or damaged ({one_line(error, most=120)})") from None


def _converted(image: Any, n_channels: int, background: int) -> Any:
    """Grey or RGB. Transparent pixels show the background, and 16-bit grey becomes 8-bit."""
    Image = _pillow()
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"an image with pixels of the mode {image.mode} has no fixed range; convert it to 8 or 16 bits")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(canvas, image)
    return image.convert("L" if n_channels == 1 else "RGB")
