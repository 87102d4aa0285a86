"""Images to arrays and back: equal to transformers, the right way up, bounded, and saved as Hugging Face saves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.processors import image as image_module
from glassformer.processors import load_processor
from glassformer.processors.image import ImageProcessor

PIL = pytest.importorskip("PIL.Image")
RGB = ImageProcessor(size=(7, 5), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
GREY = ImageProcessor(size=(7, 5), mean=(0.5,), std=(0.25,))


def picture(height: int = 13, width: int = 11, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def as_bytes(image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("processor", [RGB, GREY], ids=["rgb", "grey"])
def test_arrays_are_those_of_transformers(processor: ImageProcessor, tmp_path: Path):
    from transformers import ViTImageProcessorPil

    processor.save(tmp_path)
    theirs = ViTImageProcessorPil.from_pretrained(tmp_path)
    image = PIL.fromarray(picture())
    if processor is GREY:
        image = image.convert("L")
        expected = theirs(np.asarray(image)[None], input_data_format="channels_first", return_tensors="np")
    else:
        expected = theirs(image, return_tensors="np")
    ours = processor.encode(image)
    assert ours.shape == (processor.n_channels, 7, 5) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected["pixel_values"][0], atol=1e-5)


def test_a_folder_of_transformers_is_read(tmp_path: Path):
    from transformers import ViTImageProcessorPil

    theirs = ViTImageProcessorPil(size={"height": 6, "width": 4}, image_mean=[0.1, 0.2, 0.3], resample=3)
    theirs.save_pretrained(tmp_path)
    read = ImageProcessor.load(tmp_path)
    assert (read.size, read.mean, read.std, read.resample) == ((6, 4), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 3)


def test_the_middle_is_cut_out_as_deit_does(tmp_path: Path):
    from transformers import DeiTImageProcessorPil

    theirs = DeiTImageProcessorPil(size={"height": 9, "width": 8}, crop_size={"height": 6, "width": 5}, resample=2)
    theirs.save_pretrained(tmp_path)
    ours, image = ImageProcessor.load(tmp_path), PIL.fromarray(picture())
    assert ours.resize == (9, 8) and ours.size == (6, 5)
    np.testing.assert_allclose(ours.encode(image), theirs(image, return_tensors="np")["pixel_values"][0], atol=1e-5)


@pytest.mark.parametrize(
    "processor",
    [RGB, GREY, ImageProcessor((2, 3), scale=0.5, resample=0, background=7), ImageProcessor((4, 4), resize=(5, 6))],
)
def test_what_is_saved_is_loaded(processor: ImageProcessor, tmp_path: Path):
    processor.save(tmp_path)
    assert ImageProcessor.load(tmp_path) == processor == load_processor("patches", tmp_path)


@pytest.mark.parametrize("processor", [RGB, GREY], ids=["rgb", "grey"])
def test_decode_is_the_way_back(processor: ImageProcessor):
    pixels = picture(*processor.size, 3)[..., : processor.n_channels]
    image = processor.decode(processor.encode(pixels))
    assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert np.asarray(processor.decode(np.full((processor.n_channels, 7, 5), np.inf))).max() == 255


def test_a_path_bytes_an_image_and_an_array_give_the_same(tmp_path: Path):
    pixels = picture()
    image = PIL.fromarray(pixels)
    (tmp_path / "a.png").write_bytes(as_bytes(image))
    given = (tmp_path / "a.png", str(tmp_path / "a.png"), as_bytes(image), image, pixels)
    arrays = [RGB.encode(raw) for raw in given]
    assert all(np.array_equal(array, arrays[0]) for array in arrays)
    assert np.array_equal(RGB.encode_batch(given), np.stack(arrays))


def test_the_exif_tag_turns_the_image():
    exif = PIL.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    image = PIL.fromarray(picture())
    turned = as_bytes(image.transpose(PIL.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(RGB.encode(turned), RGB.encode(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_show_the_background(mode: str):
    image = PIL.fromarray(np.zeros((4, 4, 4), dtype=np.uint8), "RGBA")  # black, and all of it transparent
    options = {"transparency": 0} if mode == "P" else {}
    data = as_bytes(PIL.new("P", (4, 4), 0) if mode == "P" else image.convert(mode), **options)
    for background in (255, 10):
        processor = ImageProcessor((4, 4), mean=(0.0,), std=(1.0,), scale=1.0, background=background)
        assert (processor.encode(data) == background).all()


def test_16_bit_grey_keeps_its_range():
    image = PIL.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16))
    processor = ImageProcessor((1, 3), mean=(0.0,), std=(1.0,), scale=1.0)
    assert processor.encode(as_bytes(image)).ravel().tolist() == [0, 1, 255]


def test_hostile_files_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch):
    bomb = as_bytes(PIL.new("1", (9000, 9000)))  # 81 million pixels in a few kilobytes
    assert len(bomb) < 1 << 16
    for data in (bomb, b"", b"no image", as_bytes(PIL.fromarray(picture()))[:200], tmp_path / "none.png"):
        with pytest.raises(DataError) as error:
            RGB.encode(data)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(image_module, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="MiB"):
        RGB.encode(as_bytes(PIL.fromarray(picture())))


@pytest.mark.parametrize(
    "raw",
    [picture().astype(np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros(4, np.uint8)],
    ids=["float", "2", "1d"],
)
def test_other_arrays_are_refused(raw):
    with pytest.raises(UsageError, match="uint8"):
        RGB.encode(raw)


NAN = (float("nan"),) * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", (0, 5)), ("size", (5, 100_000)), ("mean", (0.5, 0.5)), ("mean", NAN), ("std", (0.0, 0.5, 0.5))),
        *(("scale", -1.0), ("resample", 9), ("background", 300), ("resize", (4, 9)), ("resize", (0, 9))),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        ImageProcessor(**{"size": (5, 5), name: value})


@pytest.mark.parametrize(
    "text",
    [
        *(None, "{", "[]", '"a"', '{"image_processor_type": "CLIPImageProcessor"}', '{"do_pad": true}'),
        '{"do_center_crop": true, "crop_size": {"height": 300, "width": 300}}',
        *('{"size": {"shortest_edge": 224}}', '{"size": "large"}', '{"image_mean": "a"}', '{"image_std": [0, 0, 0]}'),
        '{"rescale_factor": null}',
    ],
)
def test_a_configuration_that_is_damaged_or_asks_for_more_is_refused(text: str | None, tmp_path: Path):
    if text is not None:
        (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"preprocessor_config\.json: "):
        ImageProcessor.load(tmp_path)


FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
FILES = 504  # a multiple of the formats and the kinds of damage


def damaged(number: int) -> bytes:
    """A small image file with bytes that are cut off, changed, repeated, or set to the largest value."""
    random = np.random.default_rng(number)
    data = bytearray(as_bytes(PIL.fromarray(picture()), FORMATS[number % len(FORMATS)]))
    kind, start = number // len(FORMATS) % 4, int(random.integers(0, min(len(data), 200)))
    if kind == 0:
        del data[start:]
    elif kind == 1:
        for place in random.integers(0, len(data), int(random.integers(1, 9))):
            data[place] = int(random.integers(0, 256))
    elif kind == 2:
        data[start:start] = data[start : start + 64] * 3
    else:  # a width, a height or a length of four bytes is enormous
        data[start : start + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_500_damaged_files_are_read_or_refused_in_one_line():
    refused = 0
    for number in range(FILES):
        try:
            pixels_CHW = RGB.encode(damaged(number))
        except DataError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith("an image: "), number
        else:
            assert pixels_CHW.shape == (3, 7, 5) and np.isfinite(pixels_CHW).all(), number
    assert FILES // 4 < refused < FILES  # damage is found, and a changed pixel is none


def test_an_image_of_one_pixel_is_read():
    pixels_CHW = RGB.encode(as_bytes(PIL.new("RGB", (1, 1), (255, 0, 0))))
    assert np.allclose(pixels_CHW, pixels_CHW[:, :1, :1]) and pixels_CHW[0, 0, 0] > pixels_CHW[1, 0, 0]
