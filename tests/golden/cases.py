"""The cases: tables of runs, prompts, requests and views.

The words are those of version 0.1. Where a command has another name today, `COMMANDS` says so; where a key of an
answer has, `RENAMED` does.
"""

from __future__ import annotations

from typing import Any

TOY = "model.n_layer=2 model.n_embd=32 model.block_size=32 "
SHORT = (
    "training.steps=20 training.batch_size=4 training.warmup_steps=3 training.eval_every=10 training.eval_batches=2 "
    "training.sample_every=10 training.sample_tokens=20 training.checkpoint_every=10 training.device=cpu "
    "training.precision=fp32 training.compile=off "
)
TOY_DECODER = TOY + SHORT
TOY_PAIR = TOY + "model.n_decoder_layer=2 " + SHORT
SMALL_VOCABULARY = "tokenizer.vocab_size=400 "
ADAMW = "training.optimizer=adamw training.learning_rate=1e-3 "
FAST = TOY_DECODER + "model.head_width=8 "
HISTORY = SHORT + "model.n_embd=16 model.block_size=16 training.optimizer=adamw training.learning_rate=1e-2 "

# name: (recipe, --data of the inputs or "" for its own, settings); @name in the settings is an earlier run
RUNS: dict[str, tuple[str, str, str]] = {
    # every built-in recipe; those whose own data are fetched from a registry get small ones of the same form
    "shakespeare-fast": ("shakespeare-fast", "", FAST + "training.watch_activations=true"),
    "shakespeare-char": ("shakespeare-char", "", TOY_DECODER + "model.n_head=4"),
    "shakespeare-char-cpu": ("shakespeare-char-cpu", "", TOY_DECODER),
    "shakespeare-char-5min": ("shakespeare-char-5min", "", TOY_DECODER),
    "shakespeare-char-best": ("shakespeare-char-best", "", TOY_DECODER),
    "shakespeare-bpe": ("shakespeare-bpe", "documents.jsonl", TOY_DECODER + SMALL_VOCABULARY),
    "gpt2-124m": (
        "gpt2-124m",
        "play.txt",
        TOY_DECODER + "model.n_head=4 training.micro_batch_size=2 tokenizer.kind=bytes data.validation_fraction=0.1",
    ),
    "masked-reviews": ("masked-reviews", "labelled.jsonl", TOY_DECODER + SMALL_VOCABULARY),
    "sentiment": ("sentiment", "labelled.jsonl", TOY_DECODER + SMALL_VOCABULARY),
    "spans-reviews": ("spans-reviews", "labelled.jsonl", TOY_PAIR + SMALL_VOCABULARY),
    "translate-en-fr": ("translate-en-fr", "pairs.tsv", TOY_PAIR + SMALL_VOCABULARY + "training.dropout=0.1"),
    "phonemes": ("phonemes", "spellings.tsv", TOY_PAIR),
    "word-vectors": ("word-vectors", "play.txt", SHORT + "model.n_embd=32 model.block_size=32"),
    # what a run can do besides
    "own-text": ("", "play.txt", TOY_DECODER),
    "own-documents": ("", "documents.jsonl", TOY_DECODER + "tokenizer.kind=bpe " + SMALL_VOCABULARY),
    "adamw-dropout": ("shakespeare-fast", "", FAST + ADAMW + "training.dropout=0.2 training.token_dropout=0.1"),
    "accumulated": ("shakespeare-fast", "", FAST + "training.batch_size=6 training.micro_batch_size=2"),
    "bf16": ("shakespeare-fast", "", FAST + "training.precision=bf16"),
    "sgd": ("shakespeare-fast", "", FAST + "training.optimizer=sgd training.nesterov=true training.lag_steps=1"),
    "adagrad": ("shakespeare-fast", "", FAST + "training.optimizer=adagrad training.schedule=cosine"),
    "clipped-wsd": ("shakespeare-fast", "", FAST + "training.grad_clip=0.2 training.schedule=wsd data.order=random"),
    "noam": ("shakespeare-fast", "", FAST + "training.schedule=noam data.order=consecutive training.init=xavier"),
    "original": (
        "shakespeare-fast",
        "",
        FAST + "model.family=original model.tied_head=true training.schedule=constant",
    ),
    "windows": ("shakespeare-fast", "", FAST + "model.patterns=window(5),causal model.n_kv_head=2"),
    "experts": ("shakespeare-fast", "", FAST + "model.n_expert=4 model.n_expert_active=2"),
    "relative": ("shakespeare-fast", "", FAST + "model.positions=relative training.sequence_length=24"),
    "fine-tuned": ("", "play.txt", SHORT + "training.start_from=@shakespeare-fast training.sample_prompt=ROMEO:"),
    "fine-tuned-family": ("", "play.txt", SHORT + "training.start_from=inputs/models/llama"),
    "sentiment-from-masked": (
        "sentiment",
        "labelled.jsonl",
        TOY_DECODER + "training.start_from=@masked-reviews",
    ),
    "translate-on": ("", "pairs.tsv", SHORT + "objective.kind=target_sentence training.start_from=@translate-en-fr"),
    "translate-gru": ("translate-en-fr", "pairs.tsv", HISTORY + SMALL_VOCABULARY + "model.kind=seq2seq-attention"),
    "bigram": ("", "play.txt", SHORT + "model.kind=bigram model.block_size=16 " + ADAMW),
    "mlp": ("", "play.txt", HISTORY + "model.kind=mlp model.n_hidden=24"),
    "gru": ("", "play.txt", HISTORY + "model.kind=gru"),
}

PROMPT = ["--prompt", "Before we proceed any further"]
GREEDY = "-n 50 --temperature 0 --seed 1 --device cpu "
WRITE = {
    "fp32 greedy": GREEDY,
    "fp32 three samples": "-n 50 --temperature 0.8 --top-k 20 --seed 7 --samples 3 --device cpu",
    "int8 greedy": GREEDY + "--dtype int8",
    "int4 greedy": GREEDY + "--dtype int4",
    "bf16 sampled": "-n 50 --temperature 1 --top-p 0.9 --repetition-penalty 1.2 --seed 5 --device cpu --dtype bf16",
}
WRITERS = ("shakespeare-fast", "shakespeare-char-cpu", "shakespeare-bpe", "experts", "windows", "original", "gru")
WRITE_ON = {
    "exact window": GREEDY + "--window exact --json",
    "alternatives": "-n 20 --seed 3 --min-p 0.05 --alternatives 4 --json-tokens",
    "stop": "-n 80 --seed 3 --stop e --samples 2 --json",
    "plain": "-n 50 --seed 11 --no-stream",
    "bars": "-n 8 --seed 11 --alternatives 3",
}

SHORT_LINE = "We_are_resolved_to_die"
LINE = "Speak,_speak._We_are_resolved_to_die?"
GAP = "Speak,_<mask>_we_are_<mask>_to_die"
TWO_GAPS = "Speak,_<extra_id_0>_to_<extra_id_1>"
ANSWERS = {
    **{f"{m}, beam": f"translate %{m} {LINE} all_the_people --n-best 3 -n 50" for m in ("marian", "bart", "t5")},
    **{f"{m}, greedy": f"translate %{m} {LINE} --beam 1 -n 50" for m in ("marian", "bart", "t5")},
    "t5, filled": f"fill %t5 {GAP} --n-best 2 -n 30",
    "t5, filled, drawn": f"fill %t5 {GAP} --n-best 2 --temperature 0.8 --seed 4 -n 30",
    "translate-en-fr, beam": f"translate @translate-en-fr {LINE} all_the_people --n-best 3 -n 50",
    "translate-en-fr, penalty": f"translate @translate-en-fr {LINE} --beam 3 --length-penalty 1.5 --n-best 2 -n 20",
    "phonemes": "translate @phonemes speaker citizen --n-best 2 -n 30",
    "translate-gru": f"translate @translate-gru {LINE} --n-best 2 -n 30",
    "spans-reviews": f"fill @spans-reviews {GAP} --n-best 2 -n 30",
    "spans-reviews, drawn": f"fill @spans-reviews {GAP} --n-best 2 --temperature 0.8 --seed 4 -n 30",
    "masked-reviews": f"fill @masked-reviews {GAP} --alternatives 4",
    "bert": f"fill %bert {GAP} --alternatives 4",
    "sentiment": f"classify @sentiment {LINE} all_the_people!",
    "bert-classes": f"classify %bert-classes {LINE} all_the_people!",
    "bert-tags": f"classify %bert-tags {LINE}",
    "wrong command": f"translate @shakespeare-fast {LINE}",
}

LOOKED_AT = {
    "characters": ("@shakespeare-fast", "We are met to speak. Speak!"),
    "llama": ("%llama", "We are met to speak. Speak!"),
    "gpt_oss": ("%gpt_oss", "We are met to speak. Speak!"),
    "translator": ("@translate-en-fr", "We speak, resolved to die"),
    "encoder": ("@masked-reviews", "We speak, <mask> resolved"),
    "classifier": ("@sentiment", "We speak, resolved to die"),
    "word vectors": ("@word-vectors", "we speak to the people"),
}
VIEWS = (
    "tokens TEXT",
    "parameters",
    "tensors",
    "tensors *0*attention*",
    "next TEXT --temperature 0.8 --top-k 5 --seed 1",
    "surprise TEXT",
    "compare TEXT --seed 2",
    "attention TEXT",
    "attention TEXT --layer 1 --head 2",
    "induction --length 9",
    "step TEXT --layer 1 --head 2",
    "context speak TEXT they_speak_to_me",
    "neurons --layer 1 --data inputs/play.txt --characters 3000 --top 5",
    "residual TEXT",
    "lens TEXT",
    "attribution TEXT",
    "neighbours e",
    "analogy a e i o",
    "direction a:e i:o u:y --along b",
    "components a e i o u",
)
MORE_VIEWS = (
    f"attention @translate-en-fr {LINE} --kind cross --layer 1 --head 0",
    f"attention @translate-en-fr {LINE} --kind encoder",
    f"step @translate-en-fr {LINE} --kind cross --target kaepS",
    f"next @translate-en-fr {LINE} --target kaepS --top-p 0.9 --min-p 0.01 --repetition-penalty 1.3",
    f"surprise @shakespeare-fast {LINE} --window 8",
    f"compare @shakespeare-fast {SHORT_LINE} --with @shakespeare-char-cpu",
    f"lens @shakespeare-fast {SHORT_LINE} --pin e --position 3 --top 3",
    f"attribution @shakespeare-fast {SHORT_LINE} --token e --against a --check 2",
    "neighbours @word-vectors people --top 5",
    "analogy @word-vectors speak people we you --top 4",
    "direction @word-vectors we:you our:your the:a --along people",
    "components @word-vectors speak people we you the",
    "tokens --tokenizer inputs/models/llama tokenisation,_unbelievably",
    "tokens --tokenizer bytes tokenisation,_unbelievably",
    "parameters gpt2",
    "parameters gpt3",
)

ELSEWHERE = " --devices 8 --device-memory 80GB --device-flops 312e12"
PLANS = {
    "gpt2-124m": "gpt2-124m" + ELSEWHERE,
    "gpt2-124m sharded": "gpt2-124m training.sharding=full training.micro_batch_size=4" + ELSEWHERE,
    "own text elsewhere": "--data inputs/play.txt" + ELSEWHERE,
    **{
        f"{name}{' elsewhere' * bool(where)}": name + where
        for name in ("shakespeare-fast", "shakespeare-char", "shakespeare-char-cpu", "shakespeare-char-best")
        for where in ("", ELSEWHERE)
    },
    "shakespeare-char-5min": "shakespeare-char-5min",
    "shakespeare-bpe": "shakespeare-bpe --data inputs/play.txt tokenizer.vocab_size=400" + ELSEWHERE,
    "from a model": "--data inputs/play.txt training.steps=20 training.start_from=inputs/models/llama" + ELSEWHERE,
    "a translator": "translate-en-fr --data inputs/pairs.tsv",
}

LEARNED = ("translate-en-fr", "phonemes", "translate-gru")
ALL_KINDS = (
    *LEARNED,
    "spans-reviews",
    "shakespeare-fast",
    "shakespeare-bpe",
    "masked-reviews",
    "sentiment",
    "word-vectors",
    "gru",
)
EVALUATED = {
    **{name: f"evaluate @{name}" for name in ALL_KINDS},
    **{f"{name}, answers": f"evaluate @{name} --answers --limit 12 --split test" for name in LEARNED},
    "beam 2": "evaluate @translate-en-fr --answers --beam 2 --limit 8",
    "sentiment, test": "evaluate @sentiment --split test",
    "another text": "evaluate @shakespeare-fast --data inputs/play.txt",
    "train split": "evaluate @own-text --split train",
    "llama": "evaluate %llama --data inputs/play.txt",
    "two runs": "runs @shakespeare-fast @adamw-dropout",
    "three runs": "runs @shakespeare-fast @sgd @windows",
    "two translators": "runs @translate-en-fr @translate-on",
    "all runs": "runs runs --sort loss",
}

SAMPLE = "First Citizen:\nBefore we proceed, café naïve — 東京 🎉 <mask></s> It's 1,234.5  spaces\tand\n\nlines"
TOKENIZERS = {
    "characters": "inputs/play.txt --tokenizer characters",
    "characters-40": "inputs/play.txt --tokenizer characters --vocab-size 40",
    "bytes": "inputs/play.txt --tokenizer bytes",
    "bpe": "inputs/play.txt --tokenizer bpe --vocab-size 500",
    "words": "inputs/play.txt --tokenizer words --vocab-size 700",
    "plain-words": "inputs/play.txt --tokenizer plain-words",
    "documents": "inputs/documents.jsonl --tokenizer bpe --vocab-size 400 --validation-fraction 0.2 --max-tokens 9000",
    "saved": "inputs/play.txt --tokenizer inputs/models/llama",
    "saved-wordpiece": "inputs/play.txt --tokenizer inputs/models/bert",
}
SHOWN = ("play.txt", "documents.jsonl", "pairs.tsv", "labelled.jsonl")

SAVED = ("shakespeare-fast", "shakespeare-char-cpu", "translate-en-fr", "masked-reviews", "sentiment", "word-vectors")
COMPARED = (
    "diff @shakespeare-fast @adamw-dropout",
    "diff @shakespeare-fast %llama",
    "diff @sentiment @masked-reviews",
)

TEMPLATES = {
    "chatml": "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}",
    "llama 2": "{% if messages[0]['role'] == 'system' %}"
    "{% set system, messages = messages[0]['content'], messages[1:] %}"
    "{% else %}{% set system = false %}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if loop.index0 == 0 and system %}{% set said = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
    "{% else %}{% set said = m['content'] %}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + said.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "namespace": "{%- set ns = namespace(n=0, last='') -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
    "{%- set ns.last = m.role -%}[{{ ns.n }}|{{ m.role | upper }}] {{ m.content | replace('\n', ' ') }}</s>"
    "{%- endfor -%}"
    "{%- macro end(x) -%}<{{ x }}>{%- endmacro -%}{{ end(ns.last) }}{{ messages | length }}{{ messages[-1] | tojson }}"
    "{%- if tools is defined and tools -%}tools{%- endif -%}{%- if add_generation_prompt -%}[A] {%- endif -%}",
    "no system": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ {'user': 'U', 'assistant': 'M'}[m.role] }}: {{ m.content }}\n{% endfor %}{{ 'M: ' if add_generation_prompt }}",
    "broken": "{% for m in messages %}{{ m.content",
    "escaping": "{{ messages.__class__.__mro__ }}{{ messages[0].content }}",
    "endless": "{% for i in range(10000000) %}{{ i }}{% endfor %}",
}
SAID = (
    "--message We_speak -n 12",
    "--message We_speak --system Be_brief -n 12",
    "--message We_speak --temperature 0.9 --top-p 0.8 --seed 3 -n 12",
)

DRAWN = {"max_tokens": 12, "seed": 3, "temperature": 0.9}
MESSAGES = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "We speak"}]
REQUESTS: dict[str, list[dict[str, Any] | None]] = {
    "GET /v1/models": [None],
    "GET /v1/models/none": [None],
    "GET /api/models": [None],
    "GET /api/vocabulary?model=shakespeare-fast": [None],
    "POST /v1/completions": [
        {"prompt": "We speak", **DRAWN},
        {"prompt": "We speak", "max_tokens": 6, "temperature": 0, "logprobs": 3, "echo": True},
        {"prompt": ["We speak", "to you"], "n": 2, **DRAWN, "top_k": 9, "stop": ["e"], "model": "shakespeare-fast"},
        {"prompt": [5, 6, 7], **DRAWN, "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": "We speak", **DRAWN, "logit_bias": {"40": 30, "41": -100}, "min_p": 0.1, "repetition_penalty": 1.3},
        {"prompt": "We speak", "temperature": -1},
        {"prompt": "We speak", "temprature": 1},
        {"prompt": "We speak", "model": "none"},
        {"prompt": "We speak " * 99},
    ],
    "POST /v1/chat/completions": [
        {"messages": MESSAGES, **DRAWN},
        {"messages": MESSAGES, **DRAWN, "logprobs": True, "top_logprobs": 2},
        {"messages": MESSAGES, **DRAWN, "stream": True},
        {"messages": MESSAGES, **DRAWN, "model": "shakespeare-fast"},
        {"messages": []},
    ],
    "POST /v1/embeddings": [{"input": ["We speak", "to you"], "model": "bert-vectors"}, {"input": "We speak"}],
    "POST /api/tokenize": [{"text": "We speak"}, {"messages": MESSAGES}],
    "POST /api/generate": [{"ids": [5, 6, 7], "max_tokens": 5, "seed": 3, "score": True}],
    "POST /api/logits": [{"ids": [5, 6, 7], "positions": [0, 2]}],
}

# Left out everywhere: what the clock, the memory and the versions of this machine say
OF_THE_MACHINE = {
    *("seconds", "whole_seconds", "tokens_per_second", "mfu", "peak_memory_bytes", "processor", "threads", "waiting"),
    *("glassformer", "torch", "python", "time"),
}
# Left out of plans for this machine; of plans for another all is compared
OF_THE_MACHINE_IN_PLANS = (
    *("machine", "seconds_per_step", "seconds_by_part", "utilisation", "tokens_per_day", "basis", "notes"),
)

COMMANDS: dict[str, str] = {}
"""First word of a command of 0.1 -> its words today, tried where the old one is refused."""

RENAMED: dict[str, str] = {
    r"losses/.*/recipe/objective": "task",
    r"evaluate/.*/settings/objective\.(\w+)": r"task.\1",
    r"(look|tokens|serve)/.*/chance": "sampling_probability",
    r"look/.*\bnext(_token|\b).*/dart": "u",
    r"look/.*\bnext(_token|\b).*/entropy_drawn": "sampling_entropy",
    r"look/.*\bstep .*/before": "stream",
    r"look/.*\bstep .*/found": "weighted_values",
    r"look/.*\bstep .*/said": "head_output",
    r"look/.*\bstep .*/said_by_head": "output_by_head",
    r"look/.*\bstep .*/is_normed": "has_query_norm",
    r"look/.*\bstep .*/is_normed_(before|after)": r"has_norm_\1",
}
"""Pattern of a path in an old record (`part/case/key/...`, a regular expression) -> the name of its last key now."""

BOUNDS: list[tuple[str, float, str]] = [
    (
        r"losses/.*/recipe/task/kind",
        float("inf"),
        "other names (tasks.RENAMED)",
    ),
    (r"losses/.*/metrics/\d+/val_bits_per_byte", float("inf"), "a metric that a task does not have is no longer null"),
    (
        r"losses/(masked-reviews|spans-reviews|sentiment.*|translate-.*|phonemes)/samples/\d+/text",
        float("inf"),
        "the right answer is called target",
    ),
    (r"losses/.*/recipe/format", float("inf"), "formats count up; old ones are migrated (test_migrations.py)"),
    (r"look/.*\bneurons .*/direction", float("inf"), "a sentence"),
    (r"look/.*\bneurons .*/std", 2e-16, "a square root where a power of 0.5 was"),
    (r"losses/.*/recipe/training/sequence_length", float("inf"), "decided for every run now, and kept"),
    (r"losses/.*/recipe/data/document_mask", float("inf"), "an option that did not exist, and its default"),
    (
        r"losses/.*/recipe/training/lora_(dropout|targets)",
        float("inf"),
        "options that did not exist, and their defaults",
    ),
    (r"tokens/toy run, bars/\d+", float("inf"), "a heading in other words"),
    (r"evaluate/.*interval(/\d+)?", 4e-9, "scipy's quantile of the normal distribution in place of 1.96"),
    (r"evaluate/.*/rho", 2e-16, "scipy's rank correlation"),
    (r"history/compare-history/bottleneck/.*/interval", 4e-5, "Wilson's interval with 1.95996 in place of 1.96"),
    (r"plan/.*/machine/name", float("inf"), "a machine that is not this one was called told, and is called given"),
    (
        r"plan/.*/basis/val_loss|plan/own text elsewhere/notes/3",
        float("inf"),
        "sentences; their numbers stand elsewhere",
    ),
    (r"look/.*\btensors\b.*/(overview|cell|corner)", float("inf"), "None, but of a single tensor"),
    (r"look/.*\bstep .*/is_rotary", float("inf"), "a key that old records do not have"),
    (r"models/inspect .*/files/0/sha256", float("inf"), "order of keys in config.json; `save` compares its contents"),
    (r"models/inspect word-vectors/files", float("inf"), "no generation_config.json beside what generates nothing"),
    (r"models/save word-vectors/files/generation_config.json", float("inf"), "as above"),
]
"""(pattern of a path, largest difference of numbers relative to their size, why). `inf`: anything may stand there."""
