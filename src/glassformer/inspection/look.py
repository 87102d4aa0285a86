"""Any view by its name: what the command line, the server and a notebook share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glassformer.errors import UsageError
from glassformer.hub import Bundle, load
from glassformer.inspection.options import check_options, options_of
from glassformer.inspection.reading import features_of
from glassformer.inspection.vectors import Vectors, vectors_of
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import inputs_of
from glassformer.views import find


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
    processor = bundle.processor if reader is None and bundle.model.reads != "text" else None
    hears = None if source is not None else bundle.source_processor
    return Subject(name, bundle.model, reader, source, open_model, processor, tuple(bundle.labels or ()), hears)


def show(view: str, subject: Subject, options: Mapping[str, Any]) -> View:
    """A view of a subject.

    Raises:
        UsageError: there is no such view, or an option is missing, unknown or out of range.
    """
    function = find(view).load()
    checked = check_options(function, options)
    if subject.processor is not None and isinstance(checked.get("text"), str):  # the name of a file
        checked["text"] = features_of(subject.model, subject.processor, checked["text"])
    made: View = function(**{name: getattr(subject, name) for name in inputs_of(function)}, **checked)
    return made


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
