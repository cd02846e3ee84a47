"""transformers' trainer with rates by module, held-out reading, an order that depends on seed and pass alone, and logs.

Knows what is told it of data and model, no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from caprag.errors import ModelError
from caprag.paths import replacing
from caprag.training.flag import EpochOrder
from caprag.training.recognizer.collation import Collator, answer_loss
from caprag.training.recognizer.heldout import HeldOut
from caprag.training.recognizer.modules import mixed, optimizer_groups

_hub: Any = transformers  # its annotations differ from version to version

LOG = "log.jsonl"
_LEAK = 1e-4


class RecognizerTrainer(_hub.Trainer):  # type: ignore[misc]
    """A trainer for `caprag.training.recognizer`.

    Parameters
    ----------
    model, arguments, examples, collator
        As transformers wants them.
    held_out
        What the best checkpoint is chosen by; ``None``: nothing is read.
    module_rates
        See `RecognizerOptions`.
    """

    def __init__(
        self,
        model: Any,
        arguments: Any,
        examples: Any,
        collator: Collator,
        *,
        held_out: HeldOut | None,
        module_rates: Mapping[str, float],
    ) -> None:
        self._held_out, self._module_rates = held_out, dict(module_rates)
        self.optimizer: Any
        self.control: Any
        loss = partial(answer_loss, shift=not collator.encoder_decoder)
        # The trainer wants a data set to hold out; it is read here, not there.
        super().__init__(
            model=model, args=arguments, train_dataset=examples, eval_dataset=examples if held_out else None,
            data_collator=collator, compute_loss_func=loss,
        )  # fmt: skip
        # The loss is computed here for every family in the same way.
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model: Any = None) -> Any:
        """Make AdamW with the learning rates of the modules."""
        if self.optimizer is None:
            trained = self.model if model is None else model
            groups = optimizer_groups(
                trained.named_parameters(), rate=self.args.learning_rate, module_rates=self._module_rates,
                weight_decay=self.args.weight_decay, decaying=self.get_decay_parameter_names(trained),
            )  # fmt: skip
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, trained)
            self.optimizer = kind([{k: v for k, v in group.items() if k != "names"} for group in groups], **settings)
        return self.optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Read what is held out."""
        if self._held_out is None:
            return {}
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        rate = self._held_out.cer(model, rank=self.args.process_index, world_size=self.args.world_size)
        metrics = {"eval_cer": rate}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._is_plain():
            self._restore(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._is_plain():
            self._restore(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _is_plain(self) -> bool:
        """Say whether checkpoints are whole models, neither adapters nor parts."""
        return not (self.is_deepspeed_enabled or self.is_fsdp_enabled or hasattr(self.model, "peft_config"))

    def _restore(self, checkpoint: str) -> None:
        """Take up a checkpoint's weights.

        Many families write their weights under other names than they have in the model, and transformers' trainer looks
        for those in the model: it would find none, and go on with what there is.
        """
        found = type(self.model).from_pretrained(checkpoint, dtype=torch.float32)
        self.model.load_state_dict(found.state_dict())

    def _get_train_sampler(self, *_: Any) -> Any:
        return EpochOrder(self.train_dataset, self.args.seed)


class LogFile(_hub.TrainerCallback):  # type: ignore[misc]
    """Writes what is logged as JSON lines; those of steps after the checkpoint that is gone on from are dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Keep the lines of steps that are not done again."""
        if state.is_world_process_zero:
            kept = [entry for entry in read_log(self._path) if entry["step"] <= state.global_step]
            with replacing(self._path) as stream:
                stream.write("".join(json.dumps(entry) + "\n" for entry in kept).encode())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Write an entry."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class Patience(_hub.TrainerCallback):  # type: ignore[misc]
    """Stops a training after so many held-out readings without a better one.

    Counts those that the checkpoint tells of, too: transformers' own begins anew where a training is taken up.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop soon where it was stopped before."""
        self._look(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count the readings since the best."""
        self._look(state, control)

    def _look(self, state: Any, control: Any) -> None:
        rates = [entry["eval_cer"] for entry in state.log_history if "eval_cer" in entry]
        if rates and len(rates) - 1 - rates.index(min(rates)) >= self._patience:
            control.should_training_stop = True


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log; a line that was cut by a kill is dropped."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def check_causal(model: Any, batch: Mapping[str, torch.Tensor], *, encoder_decoder: bool, pad: int) -> None:
    """Make sure that no token of an answer sees those after it: else the model would learn to copy.

    Parameters
    ----------
    model
        What is to be trained.
    batch
        One example of the collator.
    encoder_decoder
        Whether the answer goes into ``decoder_input_ids``.
    pad
        What is put in the last token's place.

    Raises
    ------
    ModelError
        Where the logits before the last token depend on it.
    """
    name = "decoder_input_ids" if encoder_decoder else "input_ids"
    inputs = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
    other = {**inputs, name: inputs[name].clone()}
    other[name][:, -1] = pad if int(inputs[name][0, -1]) != pad else pad + 1
    training = model.training
    model.eval()
    with torch.no_grad(), mixed(model):
        difference = [model(**one).logits[:, :-1].float() for one in (inputs, other)]
    model.train(training)
    worst = float((difference[0] - difference[1]).abs().max()) if difference[0].numel() else 0.0
    if worst > _LEAK * max(1.0, float(difference[0].abs().max())):
        raise ModelError(
            f"{type(model).__name__} lets the words of an answer see those after them (logits differ by {worst:.3g}), "
            "so that it can't be trained on whole answers; take a model of another family"
        )
