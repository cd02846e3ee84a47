"""What is added to FlagEmbedding: draws by place, less padding, checkpoints that are taken up whole, and logs.

None changes what is computed: the same negatives are as likely, and the vectors are the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caprag.errors import require


def seeded_dataset(arguments: Any, tokenizer: Any, seed: int) -> Any:
    """Return FlagEmbedding's training data set with draws that depend on seed, epoch and row alone.

    FlagEmbedding draws a row's negatives from the program's one generator, so that a run that was stopped goes on with
    other ones.
    """
    from FlagEmbedding.abc.finetune.embedder import AbsEmbedderTrainDataset

    class Seeded(AbsEmbedderTrainDataset):  # type: ignore[misc]
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            """Note the epoch; the trainer says it."""
            self.epoch = epoch

        def __getitem__(self, item: int) -> object:
            before = random.getstate()
            random.seed(f"{seed} {self.epoch} {item}")
            try:
                return super().__getitem__(item)
            finally:
                random.setstate(before)

    return Seeded(args=arguments, tokenizer=tokenizer)


class EpochOrder:
    """A sampler whose order depends on the seed and the data set's epoch alone.

    That of accelerate is not told the epoch where a run is taken up within a later one.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng((self._seed, self._dataset.epoch)).permutation(len(self)).tolist()


def load_checkpoints_whole(trainer: Any) -> None:
    """Let a trainer take up the weights of its checkpoints.

    FlagEmbedding saves the encoder alone, and transformers would look for its weights under the names of the model
    around it: it would find none and go on with those of the base.
    """

    def load(checkpoint: str, model: Any = None) -> None:  # noqa: ARG001
        from safetensors.torch import load_file

        trainer.model.model.load_state_dict(load_file(str(Path(checkpoint) / "model.safetensors")))

    trainer._load_from_checkpoint = load


def sort_by_length(trainer: Any, group_size: int) -> None:
    """Let texts of like length go through the model together; the vectors come back in the order of the texts.

    Parameters
    ----------
    trainer
        FlagEmbedding's; its collator and the way its model encodes are replaced.
    group_size
        Texts that go through together, >= 1.
    """
    collate, model = trainer.data_collator, trainer.model
    encode = model.encode

    def groups(texts: Sequence[str], longest: int) -> dict[str, Any]:
        import torch

        rows = collate.tokenizer(list(texts), truncation=True, max_length=longest, return_tensors=None)
        lengths = [len(row) for row in rows["input_ids"]]
        order = sorted(range(len(texts)), key=lambda i: lengths[i])
        parts = []
        for start in range(0, len(order), group_size):
            part = {name: [values[i] for i in order[start : start + group_size]] for name, values in rows.items()}
            parts.append(dict(collate.tokenizer.pad(part, padding=True, return_tensors="pt")))
        return {"groups": parts, "back": torch.tensor(order).argsort()}

    def collate_sorted(features: Sequence[Any]) -> dict[str, Any]:
        passages = [text for _, group, _ in features for text in group]
        scores = [score for _, _, group in features for score in group or []]
        return {
            "queries": groups([query for query, _, _ in features], collate.query_max_len),
            "passages": groups(passages, collate.passage_max_len),
            "teacher_scores": scores or None,
            "no_in_batch_neg_flag": False,
        }

    def encode_sorted(features: Any) -> Any:
        if not isinstance(features, Mapping) or "groups" not in features:
            return encode(features)
        vectors = encode(features["groups"])
        # With nested vectors (MRL) there is a list of them.
        if isinstance(vectors, list):
            return [part[features["back"]] for part in vectors]
        return vectors[features["back"]]

    trainer.data_collator = collate_sorted
    model.encode = encode_sorted


def watch(trainer: Any, logs: Path, stop_after: int | None) -> None:
    """Let a trainer write logs for TensorBoard, log its last step whatever the interval, and stop where it is told to.

    Parameters
    ----------
    trainer
        Of transformers.
    logs
        Folder of the logs.
    stop_after
        Steps in all, after which it stops with a checkpoint; ``None`` goes to the end.
    """
    from transformers import PrinterCallback, TrainerCallback
    from transformers.integrations.integration_utils import TensorBoardCallback

    require("tensorboard", "train")
    from torch.utils.tensorboard import SummaryWriter

    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step == state.max_steps:
                control.should_log = True
            if state.global_step == stop_after:
                control.should_save = control.should_training_stop = True

    # It prints each entry of the logs.
    trainer.remove_callback(PrinterCallback)
    if trainer.is_world_process_zero():
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(logs))))  # type: ignore[no-untyped-call]
    trainer.add_callback(Ends())
