"""Level 4: from logits to text, as four small jobs: logits (with a cache), filter, choose, tell."""

from glassformer.generation.answers import Answer, answer, answer_ids, cross_attention, plain_text, source_ids
from glassformer.generation.beam import Hypothesis, beam_search
from glassformer.generation.chats import Chat
from glassformer.generation.defaults import from_the_folder, new_tokens_of, sampling_of
from glassformer.generation.draws import draw_answers
from glassformer.generation.embeddings import embed
from glassformer.generation.engine import Engine
from glassformer.generation.generate import Completion, generate, stream
from glassformer.generation.questions import Filling, classify, commands_for, fill_masks, fill_spans
from glassformer.generation.requests import Event, Request
from glassformer.generation.sampling import Sampling, choose, filtered_probabilities
from glassformer.generation.text import Alternative, Piece, StopStrings
from glassformer.generation.windows import next_logits

__all__ = [
    "Alternative",
    "Answer",
    "Chat",
    "Completion",
    "Engine",
    "Event",
    "Filling",
    "Hypothesis",
    "Piece",
    "Request",
    "Sampling",
    "StopStrings",
    "answer",
    "answer_ids",
    "beam_search",
    "choose",
    "classify",
    "commands_for",
    "cross_attention",
    "draw_answers",
    "embed",
    "fill_masks",
    "fill_spans",
    "filtered_probabilities",
    "from_the_folder",
    "generate",
    "new_tokens_of",
    "next_logits",
    "plain_text",
    "sampling_of",
    "source_ids",
    "stream",
]
