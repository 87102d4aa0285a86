"""Text to speech: levels and back, the synthesiser, what is learned, said and refused; and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toys import shaken

import glassformer as gf
from glassformer import recipes
from glassformer.data import espeak
from glassformer.data.speech import load_sentences, load_speech
from glassformer.errors import DataError, ModelFolderError, UsageError
from glassformer.generation.say import say, say_ids, sentences_of
from glassformer.models import build_model, make_config
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.speech import SpeechProcessor, load_speech_processor
from glassformer.tasks import TextToSpeech
from glassformer.tasks.text_to_speech import alignment_loss, before

P = SpeechProcessor(
    alphabet=" .?abcdefghijklmnopqrstuvwxyz",
    voices=("en-us", "en-us+f4"),
    rate=8000,
    window=256,
    hop=80,
    n_levels=5,
    frames_per_step=3,
    low=(-0.5, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    high=(0.5, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5),
)
SIZES = {"vocab_size": P.n_ids, "block_size": 31, "text_block_size": 23, "n_layer": 2, "n_encoder_layer": 1,
         "n_head": 2, "n_embd": 12, "n_bands": 7, "n_levels": 5, "frames_per_step": 3,
         "steps_per_character": 0.7}  # fmt: skip
SENTENCES = [f"{who} {what}." for who in ("we", "they", "some of you", "few") for what in (
    "sing", "are here", "like it", "saw a film", "ran")]  # fmt: skip
needs_espeak = pytest.mark.skipif(
    not __import__("importlib").util.find_spec("espeakng_loader"), reason="needs the package espeakng-loader"
)


@pytest.fixture(scope="module")
def model():
    return shaken(build_model(make_config("speech_decoder", **SIZES, family="modern"))).eval()


# ---- processor ----


def test_levels_are_the_nearest_and_whole_steps():
    frames_MF = np.linspace(-1, 2, 7 * 5, dtype=np.float32).reshape(7, 5)
    levels_TFM = P.levels(frames_MF)
    assert levels_TFM.shape == (2, 3, 7) and levels_TFM.dtype == np.uint8
    assert not levels_TFM[1, 2].any()  # filled up with silence
    again_MF = P.frames(levels_TFM)[:, :5]
    clipped_MF = frames_MF.clip(np.array(P.low)[:, None], np.array(P.high)[:, None])
    assert np.abs(again_MF - clipped_MF).max() <= 0.5 / 4 + 1e-6  # half a level
    np.testing.assert_array_equal(P.levels(P.frames(levels_TFM)), levels_TFM)
    assert len(P.decode(levels_TFM)) == 6 * P.hop and P.seconds_per_step == pytest.approx(0.03)


def test_text_is_a_voice_and_characters():
    ids = P.encode("Who  IS it?", "en-us+f4")
    assert [P.row_names[i] for i in ids] == ["<en-us+f4>", *"who is it?"]
    assert P.encode("a")[0] == P.n_ids - 2
    for text, voice, words in (("", None, "no text"), ("3 cats", None, "'3'"), ("cats", "en-gb", "en-us")):
        with pytest.raises(UsageError, match=words) as error:
            P.encode(text, voice)
        assert "\n" not in str(error.value)


def test_fit_covers_each_band():
    random = np.random.default_rng(0)
    frames = [random.normal(np.arange(7)[:, None], 0.1, (7, 50)).astype(np.float16) for _ in range(9)]
    sizes = {"rate": 8000, "window": 256, "hop": 80, "n_levels": 5, "frames_per_step": 3}
    made = SpeechProcessor.fit(frames, ["Who?", "Me."], voices=("a",), decades=4.0, **sizes)
    assert made.alphabet == ".?ehmow" and made.n_mels == 7
    np.testing.assert_allclose(made.high, np.arange(7) + 0.3, atol=0.15)
    np.testing.assert_allclose(np.subtract(made.high, made.low), 1.0, atol=1e-3)


def test_a_folder_keeps_the_processor_and_damage_is_one_line(tmp_path):
    P.save(tmp_path)
    assert load_speech_processor(tmp_path) == P
    file = tmp_path / "preprocessor_config.json"
    whole = json.loads(file.read_text())
    for changes, words in (
        ({"alphabet": None}, "alphabet"),
        ({"voices": ["a", "a"]}, "voices"),
        ({"n_levels": "5"}, "n_levels"),
        ({"low": [1.0] * 7, "high": [0.0] * 7}, "low"),
        ({"low": [0.0]}, "low"),
        ({"hop": 0}, "hop"),
        ({"more": 1}, "more"),
        ({"processor_type": "WhisperFeatureExtractor"}, "SpeechProcessor"),
    ):
        file.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(ModelFolderError, match=words) as error:
            load_speech_processor(tmp_path)
        assert "\n" not in str(error.value)


# ---- model ----


def toy_batch():
    random = np.random.default_rng(3)
    examples = []
    for n_characters, n_steps in ((5, 9), (11, 4), (8, 13)):
        ids = random.integers(1, P.n_ids, n_characters)
        levels_TN = random.integers(0, 5, (n_steps, 21)).astype(np.uint8)
        examples.append((ids, levels_TN, np.linspace(1, n_characters - 1, n_steps).astype(np.float32)))
    return examples


def test_the_future_and_padding_change_nothing(model):
    task = TextToSpeech()
    examples = toy_batch()
    ids, lengths, _, targets = task.collate(examples)
    with torch.no_grad():
        logits, end = model(ids, lengths, before(targets))
        for row, example in enumerate(examples):
            ids_1, lengths_1, _, targets_1 = task.collate([example])
            alone, its_end = model(ids_1, lengths_1, before(targets_1))
            n = alone.shape[1]
            torch.testing.assert_close(logits[row, :n], alone[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(end[row, :n], its_end[0], rtol=1e-4, atol=1e-5)
        changed = targets.clone()
        changed[2, 7:] = (changed[2, 7:] + 1) % 5
        other, _ = model(ids, lengths, before(changed))
    assert torch.equal(other[2, :8], logits[2, :8]) and not torch.allclose(other[2, 8], logits[2, 8])


def test_the_first_step_reads_no_levels(model):
    ids, lengths = torch.tensor([[3, 4]]), torch.tensor([2])
    with torch.no_grad():
        a, b = (model(ids, lengths, torch.full((1, 1, 21), level))[0] for level in (0, 4))
    assert torch.equal(a, b)


def test_cached_is_uncached(model):
    ids, lengths, _, targets = TextToSpeech().collate(toy_batch()[2:])
    with torch.no_grad():
        whole, end = model(ids, lengths, before(targets))
        memory, cache = model.encode(ids, lengths), model.new_cache()
        for t in range(targets.shape[1]):
            step, its_end = model.decode(before(targets)[:, t : t + 1], memory, cache=cache)
            torch.testing.assert_close(step[0, 0], whole[0, t], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(its_end[0, 0], end[0, t], rtol=1e-4, atol=1e-5)


def test_a_step_that_is_dropped_is_not_read():
    model = shaken(build_model(make_config("speech_decoder", **SIZES))).train()
    model.set_dropout(0.0, tokens=0.999)
    ids, lengths, _, targets = TextToSpeech().collate(toy_batch())
    with torch.no_grad():
        a, b = (model(ids, lengths, levels)[0] for levels in (before(targets), torch.zeros_like(targets)))
        torch.testing.assert_close(a, b)
        model.eval()
        assert not torch.allclose(*(model(ids, lengths, x)[0] for x in (before(targets), torch.zeros_like(targets))))


def test_too_much_for_the_model_is_one_line(model):
    with pytest.raises(UsageError, match="block_size=31"):
        model(torch.tensor([[3]]), torch.tensor([1]), torch.zeros(1, 32, 21, dtype=torch.long))
    with pytest.raises(UsageError, match="block_size=23"):
        model(torch.ones(1, 24, dtype=torch.long), torch.tensor([24]), torch.zeros(1, 1, 21, dtype=torch.long))
    with pytest.raises(UsageError, match="parallel"):
        build_model(make_config("speech_decoder", **SIZES, parallel=True, norm_place="pre"))


# ---- losses ----


def test_the_loss_is_levels_end_and_alignment(model):
    """By hand, in float64."""
    task = TextToSpeech(guide=0.7, end_weight=0.3)
    model, batch = shaken(build_model(make_config("speech_decoder", **SIZES))).double().eval(), None
    batch = task.collate(toy_batch())
    total, count, metrics = task.loss(model, batch)
    ids, lengths, centres, targets = batch
    logits, end = model(ids, lengths, before(targets))
    levels = ends = 0.0
    for row, n in enumerate((9, 4, 13)):
        shares = logits[row, :n].log_softmax(dim=-1)
        levels -= shares.gather(-1, targets[row, :n, :, None]).sum()
        p = end[row, :n].sigmoid()
        ends -= (1 - p[:-1]).log().sum() + p[-1].log()
    assert count == (9 + 4 + 13) * 21 and metrics["end"][1] == 26 == metrics["alignment"][1]
    torch.testing.assert_close(metrics["level"][0].double(), levels.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(metrics["end"][0].double(), ends.detach(), rtol=1e-5, atol=0)
    expected = levels + 21 * (0.3 * ends + 0.7 * metrics["alignment"][0])
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    sums, counts, _ = task.rows(model, batch)
    assert counts.tolist() == [189, 84, 273] and sums.sum().item() == pytest.approx(levels.item(), rel=1e-6)
    free = TextToSpeech(guide=0.0, end_weight=0.3).loss(model, batch)
    assert "alignment" not in free.metrics
    torch.testing.assert_close(free.sum.double(), levels + 21 * 0.3 * ends, rtol=1e-5, atol=0)


def test_attention_at_its_place_costs_least():
    pattern = torch.eye(9)[None, [1, 4, 7]]
    at = alignment_loss(pattern, torch.tensor([[1.0, 4.0, 7.0]]))
    beside = alignment_loss(pattern, torch.tensor([[3.0, 6.0, 8.5]]))
    torch.testing.assert_close(at, torch.zeros(1, 3))
    torch.testing.assert_close(beside, torch.tensor([[0.32, 0.32, 0.18]]))  # (d / 2.5)^2 / 2
    assert alignment_loss(torch.eye(99)[None, :1], torch.tensor([[98.0]])).isfinite().all()


# ---- saying ----


def test_speech_is_bounded_repeatable_and_of_its_seed(model):
    first, again = (say(model, P, "who is it", temperature=1.0, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.samples, again.samples)
    other = say(model, P, "who is it", temperature=1.0, seed=5)
    assert len(other.samples) != len(first.samples) or not np.array_equal(other.samples, first.samples)
    assert np.abs(first.samples).max() <= 1 and first.rate == 8000
    model.end_head.bias.data.fill_(-99)
    said = say_ids(model, P, P.encode("who is it"))
    assert len(said.levels_TFM) == 31 and not said.ended and said.pattern_TS.shape == (31, 10)
    np.testing.assert_allclose(said.pattern_TS.sum(axis=1), 1, rtol=1e-5)
    model.end_head.bias.data.fill_(99)
    assert len(say_ids(model, P, P.encode("who is it")).levels_TFM) == 1


def test_greedy_levels_are_those_of_one_pass(model):
    model.end_head.bias.data.fill_(-99)
    ids = P.encode("who is it")
    said = say_ids(model, P, ids)
    levels = torch.from_numpy(said.levels_TFM.reshape(1, 31, 21).astype(np.int64))
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids)[None], torch.tensor([len(ids)]), before(levels))
        expected = (logits.softmax(dim=-1) * torch.arange(5)).sum(dim=-1).view(31, 3, 7)
    assert torch.equal(logits.argmax(dim=-1), levels)
    torch.testing.assert_close(torch.from_numpy(said.sound_TFM), expected, rtol=1e-4, atol=1e-4)
    drawn = say_ids(model, P, ids, temperature=0.5)
    np.testing.assert_array_equal(drawn.sound_TFM, drawn.levels_TFM)


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("who", {"temperature": -1.0}, "temperature=-1"),
        ("who", {"temperature": float("nan")}, "temperature=nan"),
        ("who", {"voice": "anna"}, "'anna'"),
        ("", {}, "no text"),
        ("a" * 23, {}, "full stop"),
        ("a" * 20_001, {}, "20,001"),
        ("été", {}, "'é'"),
    ],
)
def test_what_is_not_said_is_one_line(model, text, settings, words):
    with pytest.raises(UsageError, match=words) as error:
        say(model, P, text, **settings)
    assert "\n" not in str(error.value)


def test_sentences():
    assert sentences_of(" Who?  Me. No\nend") == ["Who?", "Me.", "No end"]


# ---- espeak-ng and a run ----


@needs_espeak
def test_the_synthesiser_repeats_itself_and_knows_its_words():
    texts = ["We sing.", "They like it!"]
    first, again = (list(espeak.synthesize(texts, "en-us", 200)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.samples_N, b.samples_N)
        assert np.abs(a.samples_N).max() > 3000
    assert [starts[:, 0].tolist() for _, starts in first] == [[0, 3], [0, 5, 10]]
    for samples, starts in first:
        assert (np.diff(starts[:, 1]) > 1000).all() and starts[-1, 1] < len(samples)
    slow = next(espeak.synthesize(texts, "en-us", 100))
    assert len(slow.samples_N) > 1.4 * len(first[0].samples_N)


@needs_espeak
@pytest.mark.parametrize(
    ("texts", "voice", "speed", "error", "words"),
    [
        (["a"], "english", 200, UsageError, "'english'"),
        (["a"], "en-us+nobody", 200, UsageError, "'nobody'"),
        (["a"], "en-us", 20, UsageError, "words_a_minute=20"),
        (["a", ""], "en-us", 200, DataError, "sentence 2"),
        (["a\nb"], "en-us", 200, DataError, "sentence 1"),
    ],
)
def test_what_is_not_synthesised_is_one_line(texts, voice, speed, error, words):
    with pytest.raises(error, match=words) as found:
        list(espeak.synthesize(texts, voice, speed))
    assert "\n" not in str(found.value)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    file = tmp_path_factory.mktemp("sentences") / "mine.txt"
    file.write_text("\n".join(SENTENCES))
    return str(file)


SMALL = ["model.n_layer=1", "model.n_encoder_layer=1", "model.n_head=2", "model.n_embd=32", "training.batch_size=8",
         "training.eval_every=4", "training.checkpoint_every=4", "training.warmup_steps=2", "training.steps=8",
         "training.eval_batches=0", "task.n_mels=12", "task.n_levels=5", "data.max_examples=18"]  # fmt: skip


@needs_espeak
def test_the_cache_is_used_and_a_damaged_one_made_again(sentences, monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    audio = AudioProcessor(n_mels=12, rate=22_050, window=1024, hop=441)
    texts = {split: rows[:3] for split, rows in load_sentences(sentences).items()}
    first = load_speech(texts, ("en-us", "en-us+f4"), 250, audio)
    assert [u.voice for u in first["train"]] == ["en-us", "en-us", "en-us+f4"]
    assert {u.text for rows in first.values() for u in rows} == {t for rows in texts.values() for t in rows}
    monkeypatch.setattr(espeak, "synthesize", lambda *_: pytest.fail("the cache was not used"))
    again = load_speech(texts, ("en-us", "en-us+f4"), 250, audio)
    for a, b in zip(first["train"], again["train"], strict=True):
        assert a[:2] == b[:2]
        np.testing.assert_array_equal(a.frames_MF, b.frames_MF)
        np.testing.assert_array_equal(a.starts_W2, b.starts_W2)
    monkeypatch.undo()
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    for file in (tmp_path / "speech").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    for a, b in zip(first["train"], load_speech(texts, ("en-us", "en-us+f4"), 250, audio)["train"], strict=True):
        np.testing.assert_array_equal(a.frames_MF, b.frames_MF)


@needs_espeak
def test_a_run_learns_stops_resumes_and_says(sentences, tmp_path, glassformer):
    settings = [*SMALL, "training.dropout=0.1"]
    whole, cut = (recipes.train("say", settings, data=sentences, out=tmp_path / name) for name in ("whole", "cut"))
    rows = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text().splitlines()]
    levels = [row["level"] for row in rows if "level" in row]
    assert levels[-1] < levels[0] and rows[-1]["val_loss"] < 1.61
    (cut.path / "checkpoints" / "step-000008").rename(tmp_path / "later")
    (cut.path / "summary.json").unlink()
    recipes.resume(cut.path)
    for kept in ("model/model.safetensors", "checkpoints/step-000008/optimizer.safetensors"):
        assert (whole.path / kept).read_bytes() == (cut.path / kept).read_bytes()
    bundle = gf.load(whole.path)
    assert isinstance(bundle.processor, SpeechProcessor) and bundle.model.config.n_bands == 12
    sound = tmp_path / "x.wav"
    result = glassformer(
        "say", whole.path, "We sing. They ran.", "--out", sound, "--json", "--html", tmp_path / "x.html"
    )
    assert result.code == 0 and json.loads(result.out)["sentences"] == 2
    assert json.loads(result.out)["seconds"] == pytest.approx(gf_seconds(sound), abs=0.01)
    assert "<svg" in (tmp_path / "x.html").read_text()
    for words, shown in (
        (["We sing 3 songs."], "'3'"),
        (["We sing.", "--voice", "tom"], "'tom'"),
        (["We sing.", "--out", "x.txt"], "x.txt"),
    ):
        result = glassformer("say", whole.path, *words)
        assert result.code in (1, 2) and shown in result.err and len(result.err.splitlines()) == 1
    for word in ("task.voices=en", "task.n_levels=6", "task.decades=3"):
        with pytest.raises(UsageError, match=word.partition("=")[0]):
            recipes.train(
                "say", [*SMALL, f"training.start_from={whole.path}", word], data=sentences, out=tmp_path / "n"
            )
    for command in (["evaluate", whole.path], ["report", whole.path], ["generate", whole.path]):
        result = glassformer(*command)
        assert (result.code != 0) == (command[0] == "generate"), result.err
    assert "glassformer say" in result.err


def gf_seconds(path):
    soundfile = pytest.importorskip("soundfile", reason="needs the package soundfile")
    info = soundfile.info(str(path))
    assert info.samplerate == 22_050
    return info.duration


@needs_espeak
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["task.voices=nobody"], "nobody"),
        (["task.n_levels=1"], "n_levels"),
        (["task.words=3"], "words"),
        (["tokenizer.kind=bpe"], "tokenizer"),
        (["data.source=no-such.txt"], "no-such.txt"),
        (["model.kind=decoder"], "n_encoder_layer"),
    ],
)
def test_wrong_recipes_are_one_line(sentences, tmp_path, changes, words):
    with pytest.raises((UsageError, DataError), match=words) as error:
        recipes.train("say", [*SMALL, *changes], data=None if "data" in changes[0] else sentences, out=tmp_path / "run")
    assert "\n" not in str(error.value)
