"""The names that users write: each is where it says it is, is documented, and none disappears by accident."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import types

import pytest

import glassformer

# Removing a name from this list breaks somebody's program: it needs a major version and a line in CHANGELOG.md.
PUBLIC = {
    "glassformer": "Bundle Decoder GlassformerError KVCache ModelConfig ablate edit generate load load_tokenizer "
    "next_token save stream surprise trace train",
    "glassformer.errors": "GlassformerError UsageError DataError TokenizerError ModelFolderError RunError DeviceError "
    "DivergenceError MissingExtraError did_you_mean",
    "glassformer.files": "atomic_file atomic_folder cache_folder disk_errors sha256_file write_json write_text",
    "glassformer.taps": "Tap listening named_taps",
    "glassformer.layers": "ACTIVATIONS NORMS POSITIONS Attention Block Causal FeedForward Full GatedFeedForward "
    "Int8Linear KVCache RowCache Rows LayerNorm LearnedPositions "
    "NoPositions Mask Positions RMSNorm RotaryPositions Window "
    "int8_copy "
    "MASKS And BidirectionalWindow Documents Graph GraphMask Or PaddingMask Prefix Sinks parse_mask attend_by_flex "
    "attend_locally "
    "ClampedFeedForward CrossAttention Experts LayerNorms Memory OutputNormBlock ParallelBlock PostNormBlock "
    "SandwichBlock ZeroCenteredRMSNorm balance_loss "
    "AlibiPositions ROTARY_SCALINGS RelativePositions SINUSOID_LAYOUTS SinusoidalPositions",
    "glassformer.models.stems": "FrameLevelStem FrameStem NGrams PatchConvolutions PatchStem SetStem TextStem "
    "TripleStem VectorStem",
    "glassformer.models": "FAMILIES INITS MODELS SIZES answers_of build_model config_fields kind_of kinds_that_answer "
    "registered make_config Decoder GenerationSettings NOTHING_SET settings_of Encoder EncoderConfig EncoderDecoder "
    "EncoderDecoderConfig FlopsPerToken ModelConfig Transformer dial flops_per_token parameter_count "
    "parameters_by_part positions_of DecoderClassifier DecoderClassifierConfig "
    "SpeechDecoder SpeechDecoderConfig "
    "DualEncoder DualEncoderConfig stacks_of "
    "TrajectoryDecoder TrajectoryDecoderConfig VectorDecoder VectorDecoderConfig",
    "glassformer.history": "AttentiveLSTM AttentiveLSTMConfig HISTORY MLP Bigram BigramConfig HistoryConfig "
    "HistoryModel MLPConfig NGram "
    "NGramConfig Recurrent RecurrentCache RecurrentConfig Seq2Seq Seq2SeqConfig "
    "SkipGram SkipGramConfig SkipGramTask TokenCache WordBatches WordTests WordVectorScores build_history "
    "load_word_tests score_word_vectors word_counts word_rows",
    "glassformer.generation": "Alternative Answer Chat Completion Engine Event Grammar Request "
    "Draft diffuse Filling Hypothesis Piece Sampling StopStrings answer "
    "from_the_folder new_tokens_of sampling_of "
    "answer_ids beam_search classify commands_for cross_attention sample_answers embed fill_masks fill_spans "
    "filtered_probabilities generate next_logits plain_text predict sample source_ids tag words_of "
    "stream Segment Transcript TranscriptionSettings subtitles transcribe",
    "glassformer.hub": "Bundle FAMILIES family_for load load_model load_weights "
    "load_labels load_source_tokenizer model_folder_of save save_weights "
    "Imported Verified compare import_model inspect pull save_gguf",
    "glassformer.tasks": "DPO Decision Diffusion Distill GRPO KTO PPO SFT TASKS Batch Batches Captions Choice Classify "
    "ClassifyImages ClassifyMolecules ClassifySets DataSettings ExampleTask Generalist ImageText ImageTokens "
    "LinearFunctions Loss MaskedTokens NextToken Regress RegressMolecules RegressSets Reward "
    "RunSettings Score Spans Tag Task TaskSettings TextTask TokenizerSettings Transcribe Translate "
    "evaluate_loss linear_cross_entropy rewards task_kind window_losses",
    "glassformer.evaluation": "Comparison LossEstimate Metric Metrics PronunciationErrors RowLosses TranslationScores "
    "WindowLosses bigram_loss compare_losses evaluate_rows pronunciation_errors "
    "translation_scores",
    "glassformer.inspection": "Ablated AblationView AttentionGridView LinksView PatchingView "
    "PromotersView SteeringView promoters steering "
    "VocabularyView vocabulary ActivationsView activations ablation attention_grid links "
    "patching Analogy AttentionView AttributionView Column CompareView ContextView "
    "Curves DiffusionView diffusion Direction Activation HeatMap InductionView LensView Neighbours Neuron "
    "NeuronsView NextView Note PCA ParametersView Part PartCount Points Reading "
    "ResidualView AttentionWalkthrough SurpriseView Table TensorRow TensorsView Tokens "
    "Tokenization TokenizersView tokenizers "
    "TokensView Trace Vectors View ablate add analogy attention attribution compare "
    "context direction edit explain induction_scores lens look neighbours neurons next_token "
    "parameters patch pca read residual scale attention_walkthrough surprise tap_names tensors "
    "tokens trace vectors_of",
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names.split()]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_is_there_and_documented(module: str, name: str):
    thing = getattr(importlib.import_module(module), name)
    if isinstance(thing, type | types.FunctionType):
        assert thing.__doc__, f"{module}.{name} has no docstring"


@pytest.mark.parametrize("module", [m for m in PUBLIC if hasattr(importlib.import_module(m), "__all__")])
def test_star_imports_give_the_public_names_and_no_others(module: str):
    listed = set(importlib.import_module(module).__all__)
    assert set(PUBLIC[module].split()) <= listed
    rooms_that_grow = ("glassformer",)  # later rooms add names here, and then to the list above
    if module not in rooms_that_grow:
        assert listed == set(PUBLIC[module].split())


def test_each_lazy_name_is_the_very_object_of_its_home():
    for name, home in glassformer._HOMES.items():
        assert getattr(glassformer, name) is getattr(importlib.import_module(home), name)


def test_the_front_lists_its_names_and_refuses_others():
    assert set(glassformer._HOMES) | {"__version__"} == set(glassformer.__all__) == set(dir(glassformer))
    with pytest.raises(AttributeError, match="module 'glassformer' has no attribute 'quantise'"):
        glassformer.quantise  # noqa: B018


def test_the_versions_agree():
    from importlib.metadata import version

    assert glassformer.__version__ == version("glassformer")


def modules_with_examples() -> list[str]:
    walk = pkgutil.walk_packages(glassformer.__path__, "glassformer.")
    return [info.name for info in walk if not info.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_in_the_docstrings_are_true(name: str):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
