"""Preference optimisation: worked by hand, and equal to TRL's on the same batch."""

import math

import pyarrow as pa
import pytest
import torch

from qwen_core.errors import ArtifactError
from qwen_core.train.dpo import DpoTask
from qwen_core.train.pair_losses import pair_losses
from tests.train.tables import OwnId, write

OPTIONS = {"kind": "sigmoid", "beta": 0.1, "label_smoothing": 0.0, "sft_weight": 0.5, "batch_size": 2}


def _loss(margin: float, kind: str, **options) -> float:
    ratios = torch.tensor([[margin], [0.0]], dtype=torch.float64)
    return float(pair_losses(ratios, torch.ones(2, 1), kind=kind, beta=1.0, **options))


def test_losses_are_the_ones_worked_by_hand():
    assert _loss(0, "sigmoid") == pytest.approx(math.log(2))
    assert _loss(1, "sigmoid") == pytest.approx(math.log(1 + math.exp(-1)))
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert _loss(1, "sigmoid", label_smoothing=0.1) == pytest.approx(0.9 * right + 0.1 * wrong)
    assert _loss(1, "robust", label_smoothing=0.1) == pytest.approx((0.9 * right - 0.1 * wrong) / 0.8)
    assert [_loss(margin, "hinge") for margin in (-1, 0.25, 2)] == [2, 0.75, 0]
    assert _loss(1, "ipo") == pytest.approx(0.25)  # (1 - 1/2)^2


def test_ipo_compares_tokens_so_that_length_decides_nothing():
    ratios, lengths = torch.tensor([[4.0], [1.0]]), torch.tensor([[8], [2]])
    assert float(pair_losses(ratios, lengths, kind="ipo", beta=0.5)) == 1.0  # both half a nat a token: (0 - 1)^2


def test_policy_is_compared_with_the_reference(tmp_path):
    """Chosen tokens 1 + 2 cost 3 nats, rejected 4 costs 4: a reference to which nothing costs gives margin 0.1 * 1."""
    row = {"id": "a", "prompt_ids": [9, 9], "chosen_ids": [1, 2], "rejected_ids": [4]}
    path = write(
        tmp_path / "a.arrow", pa.Table.from_pylist([row | {"reference_chosen": 0.0, "reference_rejected": 0.0}])
    )
    task = DpoTask(path, path, **OPTIONS)
    figures = task.validate(OwnId())
    assert figures["margin"] == pytest.approx(0.1) and figures["reward_accuracy"] == 1.0
    assert figures["loss"] == pytest.approx(math.log(1 + math.exp(-0.1)) + 0.5 * 3 / 2)  # as in training
    assert figures["preference_accuracy"] == 1.0  # 1.5 nats a token against 4
    batch = task.batch([0])
    objective = task.objective(OwnId().measure(batch), batch)
    assert float(objective.loss) == pytest.approx(math.log(1 + math.exp(-0.1)) + 0.5 * 3 / 2)
    assert batch.count == 1 and batch.tokens == 7 and task.describe([0]) == ["a"]


def test_padding_is_marked_for_routers_alone(tmp_path):
    row = {"id": "a", "prompt_ids": [9], "chosen_ids": [1, 2], "rejected_ids": [4]}
    table = pa.Table.from_pylist([row | {"reference_chosen": 0.0, "reference_rejected": 0.0}])
    path = write(tmp_path / "a.arrow", table)
    assert DpoTask(path, path, **OPTIONS).batch([0]).segment_ids is None
    segments = DpoTask(path, path, **OPTIONS, has_router=True).batch([0]).segment_ids
    assert segments.tolist() == [[0, 0, 0], [0, 0, -1]]


def test_pairs_that_no_reference_has_judged_are_refused(tmp_path):
    row = {"id": "a", "prompt_ids": [9], "chosen_ids": [1], "rejected_ids": [4]}
    path = write(tmp_path / "a.arrow", pa.Table.from_pylist([row]))
    with pytest.raises(ArtifactError, match="reference_chosen and reference_rejected"):
        DpoTask(path, path, **OPTIONS)


@pytest.mark.slow
def test_losses_and_gradients_equal_trl(tmp_path):
    """The same random model, reference and pairs through TRL's trainer and through ours, for each loss it has too."""
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
    from trl import DPOConfig, DPOTrainer

    from qwen_core.model import load_pretrained
    from qwen_core.train.task import Alone

    words = ["<pad>", "<eos>", *(f"w{number}" for number in range(60))]
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>")
    theta = {"rope_type": "default", "rope_theta": 10_000.0}
    figures = {"vocab_size": 62, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    config = Qwen3Config(
        **figures, num_attention_heads=4, num_key_value_heads=2, rope_parameters=theta, tie_word_embeddings=True
    )
    for name, seed in (("policy", 1), ("reference", 2)):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)  # so that the losses differ
        model.save_pretrained(tmp_path / name)
    pairs = [
        {"prompt": "w1 w2 w3", "chosen": " w4 w5 w6 w7", "rejected": " w8 w9"},
        {"prompt": "w10", "chosen": " w11", "rejected": " w12 w13 w14"},
        {"prompt": "w20 w21", "chosen": " w22 w23", "rejected": " w24 w25 w26"},
    ]
    encoded = [{name: tokenizer(text)["input_ids"] for name, text in pair.items()} for pair in pairs]
    end = tokenizer.eos_token_id
    reference = Alone(load_pretrained(tmp_path / "reference"))
    for kind, smoothing in (("sigmoid", 0.0), ("robust", 0.2), ("hinge", 0.0), ("ipo", 0.0)):
        arguments = DPOConfig(
            output_dir=str(tmp_path / "trl"),
            loss_type=[kind],
            beta=0.3,
            label_smoothing=smoothing,
            per_device_train_batch_size=3,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to=[],
        )
        theirs = Qwen3ForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
        trainer = DPOTrainer(
            theirs,
            Qwen3ForCausalLM.from_pretrained(tmp_path / "reference", dtype=torch.float32),
            args=arguments,
            train_dataset=datasets.Dataset.from_list(pairs),
            processing_class=tokenizer,
        )
        inputs = next(iter(trainer.get_train_dataloader()))
        expected = trainer.compute_loss(trainer.model, inputs)
        expected.backward()

        rows = [
            {
                "id": str(number),
                "prompt_ids": pair["prompt"],
                "chosen_ids": [*pair["chosen"], end],
                "rejected_ids": [*pair["rejected"], end],
                "reference_chosen": 0.0,
                "reference_rejected": 0.0,
            }
            for number, pair in enumerate(encoded)
        ]
        path = write(tmp_path / "pairs.arrow", pa.Table.from_pylist(rows))
        task = DpoTask(
            path, path, **OPTIONS | {"kind": kind, "beta": 0.3, "label_smoothing": smoothing, "sft_weight": 0.0}
        )
        batch = task.batch([0, 1, 2])
        batch.extras["reference"].copy_(-reference.measure(batch).double().sum(1).view(2, -1))
        ours = load_pretrained(tmp_path / "policy")
        loss = task.objective(ours(batch.input_ids, labels=batch.labels), batch).loss / 3
        loss.backward()
        assert float(loss) == pytest.approx(float(expected), abs=1e-5), kind
        gradients = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            assert torch.allclose(parameter.grad, gradients[name].grad, atol=1e-5), (kind, name)
