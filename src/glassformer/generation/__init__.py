"""Level 4: generation as four small jobs: logits (engine, lockstep), filters, sampling, stopping; and their uses.

generate.py     prompt in, text out       seq2seq.py    source in, target out     encoders.py    classes, vectors
chat.py         turns of a chat           beam.py       the most likely target    fill_mask.py   gaps of a text
grammar.py      JSON schemas, by a mask   diffusion.py  hidden tokens, in steps   tagging.py     a class for each word
transcribe.py   sound in, text out
"""

from glassformer.generation.beam import Hypothesis, beam_search
from glassformer.generation.chat import Chat
from glassformer.generation.commands import commands_for
from glassformer.generation.diffusion import Draft, diffuse
from glassformer.generation.encoders import classify, embed, predict
from glassformer.generation.engine import Engine
from glassformer.generation.fill_mask import Filling, fill_masks, fill_spans
from glassformer.generation.filters import filtered_probabilities
from glassformer.generation.generate import Completion, generate, stream
from glassformer.generation.grammar import Grammar
from glassformer.generation.lockstep import next_logits
from glassformer.generation.requests import Alternative, Event, Piece, Request
from glassformer.generation.sampling import sample
from glassformer.generation.seq2seq import Answer, answer, answer_ids, cross_attention, plain_text, source_ids
from glassformer.generation.seq2seq_sampling import sample_answers
from glassformer.generation.settings import Sampling, from_the_folder, new_tokens_of, sampling_of
from glassformer.generation.stopping import StopStrings
from glassformer.generation.subtitles import subtitles
from glassformer.generation.tagging import tag, words_of
from glassformer.generation.transcribe import Segment, Transcript, TranscriptionSettings, transcribe
from glassformer.renamed import keep_old_names

__all__ = [
    "Alternative",
    "Answer",
    "Chat",
    "Completion",
    "Draft",
    "Engine",
    "Event",
    "Filling",
    "Grammar",
    "Hypothesis",
    "Piece",
    "Request",
    "Sampling",
    "Segment",
    "StopStrings",
    "Transcript",
    "TranscriptionSettings",
    "answer",
    "answer_ids",
    "beam_search",
    "classify",
    "commands_for",
    "cross_attention",
    "diffuse",
    "embed",
    "fill_masks",
    "fill_spans",
    "filtered_probabilities",
    "from_the_folder",
    "generate",
    "new_tokens_of",
    "next_logits",
    "plain_text",
    "predict",
    "sample",
    "sample_answers",
    "sampling_of",
    "source_ids",
    "stream",
    "subtitles",
    "tag",
    "transcribe",
    "words_of",
]

keep_old_names(__name__)
