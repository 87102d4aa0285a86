"""What the files beside a vocabulary declare about it, in old and new folders.

    tokenizer_config.json      class, named special tokens, added_tokens_decoder, chat template, add_bos_token ...
    special_tokens_map.json    named special tokens, before they stood in tokenizer_config.json
    added_tokens.json          tokens behind those of the vocabulary: text and id
    chat_template.jinja        the chat template, since 2025 (chat_template.json before, of processors)
    config.json                tokenizer_class or model_type, where nothing else names the class

The order of precedence is that of transformers (5.23, `PreTrainedTokenizerBase._from_pretrained`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Library

from glassformer.errors import TokenizerError, one_line
from glassformer.processors.tokenizers.files import library_errors, read_json, read_text
from glassformer.processors.tokenizers.tokenizer import Tokenizer

PARTS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_KEPT_SETTINGS = ("model_max_length", "padding_side", "split_special_tokens")
_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>")
_FLAGS = ("lstrip", "rstrip", "normalized", "single_word")
_GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "SentencePieceBackend")
_OF_MODELS = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj"), "GPT2Tokenizer"),
    **dict.fromkeys(("roberta", "bart"), "RobertaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("bert", "distilbert", "electra"), "BertTokenizer"),
    **dict.fromkeys(("t5", "mt5"), "T5Tokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "GemmaTokenizer"),
    "gpt_neox": "GPTNeoXTokenizer",
    "marian": "MarianTokenizer",
    "whisper": "WhisperTokenizer",
}


class Declared(NamedTuple):
    """kind: the class of transformers that the files were made for, "" where nothing names one. named: special tokens
    by their part; None: the folder rules it out. more: further special tokens. added: by their ids."""

    config: dict[str, Any]
    kind: str
    named: dict[str, AddedToken | None]
    more: list[AddedToken]
    added: dict[int, AddedToken]
    chat_template: str | None


class Draft(NamedTuple):
    """A vocabulary that was read. specials: by their part, those of the class, which the folder may replace.
    is_whole: it came with everything around a text (tokenizer.json), so add_bos_token and its like change nothing.
    keeps_frame: what stands around a text belongs to the class."""

    library: Library
    specials: dict[str, str]
    is_whole: bool = False
    keeps_frame: bool = False


def read_declared(folder: Path) -> Declared:
    """What the files of a folder declare."""
    config = _json(folder / "tokenizer_config.json")
    named_in = dict(config)
    if "added_tokens_decoder" not in config:
        named_in |= _json(folder / "special_tokens_map.json")
    source = folder / "tokenizer_config.json"
    named = {part: _token(named_in[part], source, special=True) for part in PARTS if part in named_in}
    more = []
    for name in _LISTS:
        given = named_in.get(name) or []
        given = list(given.values()) if isinstance(given, dict) else given
        if not isinstance(given, list):
            raise TokenizerError(f"{source}: {name} is {one_line(repr(given), most=40)}, where a list is needed")
        more += [token for entry in given if (token := _token(entry, source, special=True)) is not None]
    special = {token.content for token in (*named.values(), *more) if token is not None}
    return Declared(
        config, _class(folder, config), named, more, _added(folder, config, special), _chat_template(folder, config)
    )


def with_declared(draft: Draft, declared: Declared, source: Path) -> Tokenizer:
    """The tokenizer of a vocabulary and what was declared about it."""
    library, config = draft.library, declared.config
    present = {part: text for part, text in draft.specials.items() if library.token_to_id(text) is not None}
    defaults = {part: AddedToken(text, special=True, normalized=False) for part, text in present.items()}
    named = {part: token for part, token in {**defaults, **declared.named}.items() if token is not None}
    if "glassformer" not in config:  # ours are whole as they are
        with library_errors(f"{source}: a token declared beside it cannot be added"):
            _add(library, draft, declared, [*named.values(), *declared.more], source)
            if not draft.is_whole and not draft.keeps_frame and {"add_bos_token", "add_eos_token"} & config.keys():
                start, end = (
                    named[part].content if config.get(f"add_{part}") is True and part in named else None
                    for part in ("bos_token", "eos_token")
                )
                library.post_processor = frame(library, start, end)
    settings: dict[str, Any] = {part: token.content for part, token in named.items()}
    if declared.more:
        settings["additional_special_tokens"] = [token.content for token in declared.more]
    settings |= {name: config[name] for name in _KEPT_SETTINGS if isinstance(config.get(name), (str, int, float))}
    if not draft.is_whole:
        settings.setdefault("split_special_tokens", True)
    end = settings.get("eos_token")
    if end is None and draft.is_whole and "eos_token" not in declared.named:
        special = {token.content for token in library.get_added_tokens_decoder().values() if token.special}
        end = next((name for name in _END_OF_TEXT if name in special), None)
    return Tokenizer(library, end_of_text=end, chat_template=declared.chat_template, settings=settings)


def _add(library: Library, draft: Draft, declared: Declared, specials: list[AddedToken], source: Path) -> None:
    """Put every declared token into the library: at its declared id, else behind all others."""
    known = {token.content for token in library.get_added_tokens_decoder().values()}
    by_text = {token.content: token for token in declared.added.values()}
    for number, token in sorted(declared.added.items()):
        if token.content in known and draft.is_whole:
            continue
        library.add_tokens([token])
        if (found := library.token_to_id(token.content)) != number:
            raise TokenizerError(
                f"{source.parent}: the token {token.content!r} is declared with the id {number}, and is {found} in "
                f"{source.name}; save it as tokenizer.json (transformers: AutoTokenizer ... save_pretrained)"
            )
    for token in specials:
        if token.content not in known and token.content not in by_text:
            library.add_special_tokens([token])


def frame(library: Library, start: str | None, end: str | None) -> processors.PostProcessor:
    """What puts these tokens, which the library has, before and behind every text."""
    around = [token for token in (start, "$A", end) if token is not None]
    ids = {token: library.token_to_id(token) for token in (start, end) if token is not None}
    return processors.TemplateProcessing(single=around, special_tokens=list(ids.items()))


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _class(folder: Path, config: dict[str, Any]) -> str:
    given = config.get("tokenizer_class")
    if given is None:
        model = _json(folder / "config.json")
        given = model.get("tokenizer_class") or _OF_MODELS.get(str(model.get("model_type")), "")
    name = str(given).removesuffix("Fast")
    return "" if name in _GENERIC else {"LLaMATokenizer": "LlamaTokenizer"}.get(name, name)


def _token(given: Any, source: Path, *, special: bool) -> AddedToken | None:
    """A token from its text, or from an object with its text and flags; None for no token."""
    if given is None or given == "":
        return None
    flags: dict[str, Any] = {"normalized": False}
    if isinstance(given, dict):
        flags |= {name: given[name] for name in _FLAGS if isinstance(given.get(name), bool)}
        special = special or given.get("special") is True
        given = given.get("content")
    if not isinstance(given, str) or not given:
        raise TokenizerError(f"{source}: {one_line(repr(given), most=40)} is given as a token, where a text is needed")
    return AddedToken(given, special=special, **flags)


def _added(folder: Path, config: dict[str, Any], special: set[str]) -> dict[int, AddedToken]:
    """Tokens by their ids, from `added_tokens_decoder`, else from added_tokens.json."""
    source, listed = folder / "tokenizer_config.json", config.get("added_tokens_decoder")
    if listed is None:
        source = folder / "added_tokens.json"
        listed = {
            number: {"content": text, "special": text in special, "normalized": text not in special}
            for text, number in _json(source).items()
        }
    if not isinstance(listed, dict):
        raise TokenizerError(f"{source}: added_tokens_decoder is no object; fetch the file again")
    found = {}
    for number, given in listed.items():
        if not str(number).isdecimal() or len(str(number)) > 9:
            raise TokenizerError(f"{source}: a token has the id {one_line(number, most=40)}, which is no number")
        if (token := _token(given, source, special=False)) is not None:
            found[int(number)] = token
    return found


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The default one; files win over tokenizer_config.json."""
    if (jinja := folder / "chat_template.jinja").is_file():
        return read_text(jinja)
    template = config.get("chat_template")
    if template is None:
        template = _json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
    if isinstance(template, dict):
        template = template.get("default") if len(template) > 1 else next(iter(template.values()), None)
    return template if isinstance(template, str) else None
