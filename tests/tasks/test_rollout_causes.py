"""What the metrics of roll-outs show to be wrong, in words."""

import pytest
from policies import REWARDS_B, answers, opened, small_tokenizer

from glassformer.models.generation_settings import GenerationSettings
from glassformer.tasks import GRPO, PPO


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


HEALTHY = {"steps": 20, "reward": 0.4, "length": 5, "ended": 0.9, "sampler_gap": 1e-5, "kl": 0.1, "clip_fraction": 0.05,
           "entropy": 1.0, "groups_with_spread": 0.8, "explained_variance": 0.3, "val_reward": 0.4}  # fmt: skip


@pytest.mark.parametrize("kind", [GRPO, PPO])
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ([{}] * 5, None),
        ([{"entropy": 1.0}, *({"entropy": 0.1, "val_reward": 0.5 + 0.1 * i} for i in range(4))], None),  # it rises
        ([{"ended": 0.01}], "ended"),
        ([{"sampler_gap": 0.9}], "sampler"),
        ([{"kl": -0.5}], "kl"),
        ([{"kl": -0.01}], None),  # by chance
        ([{"clip_fraction": 0.9}], "clip"),
        ([{"entropy": 1.0}, *[{"entropy": 0.1}] * 3], "entropy"),
        ([{"length": 5 + i, "val_reward": 0.4 - 0.1 * i} for i in range(4)], "length"),
    ],
)
def test_causes(tokenizer, kind, changes, cause):
    found = opened(kind, tokenizer).causes([HEALTHY | change for change in changes])
    assert set(found) == ({cause} if cause else set())
    assert all("task." in text or "training." in text or cause in ("kl", "length") for text in found.values())


def test_causes_of_one_method(tokenizer):
    assert "87 % of groups" in opened(GRPO, tokenizer).causes([HEALTHY | {"groups_with_spread": 0.13}])[
        "spread"
    ].replace("87%", "87 %")
    assert "critic" in opened(PPO, tokenizer).causes([HEALTHY | {"explained_variance": -0.5}] * 4)


def test_a_model_folder_that_forbids_tokens_is_noticed(tokenizer):
    task = opened(GRPO, tokenizer, samples=4)
    gap = task.FACTS.index("sampler_gap")
    fair = task.batch_of(answers(task, tokenizer, 4), REWARDS_B)[-1][0, gap]
    assert fair < 1e-4
    task.model.generation_settings = GenerationSettings(suppress_tokens=tuple(range(200)))
    forced = task.batch_of(answers(task, tokenizer, 4), REWARDS_B)[-1][0, gap]
    assert "sampler" in task.causes([HEALTHY | {"sampler_gap": float(forced)}])
