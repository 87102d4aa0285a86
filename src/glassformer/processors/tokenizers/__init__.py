"""Tokenizers: text to ids and back.

from glassformer.processors.tokenizers import TOKENIZERS, load_tokenizer
tokenizer = TOKENIZERS["bpe"]([text], vocab_size=1024)
tokenizer.save("runs/NAME/model")            # transformers.AutoTokenizer loads it
tokenizer = load_tokenizer("runs/NAME/model")

tokenizer.py      the one class; its promises
kinds.py          what a tokenizer.json describes, read off its structure
alphabet.py       how vocabularies spell bytes
streaming.py      ids to text, whole characters only
bulk.py           the fast ways from text to arrays
builders.py       TOKENIZERS: a builder a name
chat.py           chat templates: messages to text and ids
  marks.py        which special tokens in a chat the template wrote, and which a message
  template_sandbox.py  template_meter.py      running a template that comes with a file, bounded
special_token_encoder.py   text with special tokens between, to ids
gpt2.py  wordpiece.py  sentencepiece.py  reading.py   vocabularies made by others
bpe_twin.py       byte-level BPE in plain Python, to be read
stepwise.py       the merges of a text one by one, and where its tokens begin
"""

from glassformer.processors.tokenizers.builders import TOKENIZERS, build_tokenizer
from glassformer.processors.tokenizers.chat import ChatTemplate
from glassformer.processors.tokenizers.reading import load_tokenizer
from glassformer.processors.tokenizers.tokenizer import Tokenizer, UnknownCharacterWarning

__all__ = ["TOKENIZERS", "ChatTemplate", "Tokenizer", "UnknownCharacterWarning", "build_tokenizer", "load_tokenizer"]
