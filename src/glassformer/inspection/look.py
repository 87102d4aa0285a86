"""Any view by its name: what the command line, the server and a notebook share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glassformer.errors import UsageError
from glassformer.hub import Bundle, load
from glassformer.inspection.files import features_of, is_picture
from glassformer.inspection.options import check_options, options_of
from glassformer.inspection.vectors import Vectors, vectors_of
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import inputs_of
from glassformer.views import find

READ = ("text", "word", "words", "a", "pairs", "corpus", "sound")  # options of views that a model reads


@dataclass
class Subject:
    """What a view looks at. The parameters of a view that have the names of these fields and properties are filled in.

    name: what the model is called. source_tokenizer: of a translator, that of what it reads, if it is another one.
    open_model: another model by its name. processor: of a model that reads no text, what makes arrays of files. labels:
    the names of a classifier's classes. source_processor: of a model that reads no text and writes one, what makes
    arrays of files; None where none may be opened.
    """

    name: str = "model"
    model: Any = None
    tokenizer: Any = None
    source_tokenizer: Tokenizer | None = None
    open_model: Callable[[str], Subject] | None = None
    processor: Any = None
    labels: Sequence[str] = ()
    source_processor: Any = None

    @property
    def model_or_size(self) -> Any:
        """The model; without one, the name of a size that has never been built."""
        return self.name if self.model is None else self.model

    @property
    def input_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of what the model reads."""
        return self.source_tokenizer or self.tokenizer

    @property
    def vectors(self) -> Vectors:
        """The token embedding."""
        return vectors_of(self.model, self.tokenizer)


def open_subject(path: str, adapter: str | None = None) -> Subject:
    """A run, a model folder or a pulled model, in fp32; adapter: a LoRA adapter of it.

    Raises:
        ModelFolderError, TokenizerError: as `load`.
    """
    return subject_of(path, load(path, adapter=adapter), open_subject)


def subject_of(name: str, bundle: Bundle, open_model: Callable[[str], Subject] | None = None) -> Subject:
    """A loaded model, and of what belongs to it what views take."""
    source = bundle.source_processor if isinstance(bundle.source_processor, Tokenizer) else None
    reader = bundle.processor if hasattr(bundle.processor, "arguments") else bundle.tokenizer
    is_pair = "target" in bundle.model.answers
    processor = None
    if bundle.model.reads != "text" and (reader is None or is_pair):
        processor = bundle.source_processor if is_pair else bundle.processor
    hears = None if source is not None else bundle.source_processor
    return Subject(name, bundle.model, reader, source, open_model, processor, tuple(bundle.labels or ()), hears)


def show(view: str, subject: Subject, options: Mapping[str, Any]) -> View:
    """A view of a subject.

    Raises:
        UsageError: there is no such view, or an option is missing, unknown or out of range.
    """
    function = find(view).load()
    checked, inputs = check_options(function, options), inputs_of(function)
    if getattr(subject.model, "reads", "") == "image_text":
        subject = _side(subject, inputs, checked)
    if "model" in inputs and subject.processor is not None and isinstance(checked.get("text"), str):  # a file's name
        checked["text"] = features_of(subject.model, subject.processor, checked["text"])
    made: View = function(**{name: getattr(subject, name) for name in inputs}, **checked)
    return made


def _side(subject: Subject, inputs: Sequence[str], checked: Mapping[str, Any]) -> Subject:
    """Of a model of images and texts, what a view looks at: the encoder of images for a picture's name and for a view
    that takes nothing, that of texts for a text or words, and all of it where parameters are asked for."""
    both = subject.processor
    if both is None or "model_or_size" in inputs or "pattern" in checked:
        return replace(subject, processor=None)
    given = next((checked[name] for name in READ if name in checked), None)
    if given is None or (isinstance(given, str) and is_picture(given)):
        return replace(subject, model=subject.model.image, processor=both.image)
    return replace(subject, model=subject.model.text, tokenizer=both.tokenizer, processor=None)


def look(view: str, model: Any = None, tokenizer: Tokenizer | None = None, *arguments: Any, **options: Any) -> View:
    """A view by its name: `look("attention", model, tokenizer, "To be, or not", layer=1)`.

    Args:
        view: a key of `glassformer.views.VIEWS`.
        arguments, options: those of the view's function, the model and what belongs to it left out.
            `source_tokenizer=`: of a translator, the tokenizer of what it reads. `labels=`: of a classifier, the names
            of its classes.

    Raises:
        UsageError: as `show`, and as the view.
    """
    names = list(options_of(find(view).load()).model_fields)
    if len(arguments) > len(names):
        raise UsageError(f"view {view} takes {len(names)} arguments and was given {len(arguments)}")
    subject = Subject("model", model, tokenizer, options.pop("source_tokenizer", None), open_subject)
    subject.labels = options.pop("labels", ())
    return show(view, subject, dict(zip(names, arguments, strict=False)) | options)
