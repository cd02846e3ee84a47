"""The shipped reader: a vision tower, a neck, and a small causal language model that reads on after the picture.

In LLaVA's way the picture's features stand before the text as if they were tokens: one for each character that the
steps seem to show. They begin in the space of the characters' embeddings: a step that the tower took for a character
lies near that character, so that reading is at first copying. Picture and text are numbered side by side, the first
character of one as the first of the other, so that what is to be copied is always one place ahead. What CTC says of the
place that a pointer finds is added to the language model's scores, and so is what CTC expects next, as a whole. Knows
features and token ids, no files and no pictures. Plain transformers loads and generates with it once this package is
imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from caprag.recognition.reader.configuration import ReaderConfig
from caprag.recognition.reader.ctc_prefix import LEAST, next_logprobs, text_loss
from caprag.recognition.reader.last_stages import LastStages, TowerChanges
from caprag.recognition.reader.pointer import Picture, Pointer
from caprag.recognition.reader.projector import Projector
from caprag.recognition.reader.tower import LAST_STAGES, Pixels, Tower

_hub: Any = transformers  # its annotations differ from version to version

_IMPOSSIBLE = -1e4
"""Nats of what CTC rules out; finite in half precision, too."""


@dataclass
class ReaderOutput(CausalLMOutputWithPast):
    """What a forward pass gives.

    Attributes
    ----------
    further_loss
        In training, CTC's loss of the texts times its weight, in nats a token; `loss`, where there are labels, holds
        it too.
    """

    further_loss: torch.Tensor | None = None


class ReaderForConditionalGeneration(_hub.PreTrainedModel, _hub.GenerationMixin):  # type: ignore[misc]
    """Reads lines of text from pictures or from the tower's features.

    The tower is no part of the state, but for changes to its last two stages: it comes from the installed rapidocr when
    the first picture does. It runs outside torch; where the changes are trained, the last two stages run in it.
    """

    config_class = ReaderConfig
    config: Any
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _tied_weights_keys = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True
    kept_beside_cache = ("rope_deltas", "picture_keys", "picture_values", "picture_numbers", "picture_heard")
    """What belongs to a cache and is not in it: rows of tensors, as the cache has them."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__(config)
        from transformers.models.pp_ocrv6_small_rec.modeling_pp_ocrv6_small_rec import PPOCRV6SmallRecEncoderWithSVTR

        self.tower_changes = TowerChanges(config.tower_rank) if config.tower_rank else None
        self.neck = PPOCRV6SmallRecEncoderWithSVTR(config.neck_config)
        self.projector = Projector(config.neck_config.hidden_size, config.text_config.hidden_size)
        self.ctc_bias = nn.Parameter(torch.zeros(config.text_config.vocab_size))
        self.language_model = _hub.Qwen3ForCausalLM(config.text_config)
        self.pointer = Pointer(config.text_config.hidden_size)
        self._tower: Tower | None = None
        # Where the changes are trained; no module of this one, whose weights it shares.
        self._early: tuple[Tower, LastStages] | None = None
        self._heard: torch.Tensor | None = None
        # How far the numbers of a text's places lie behind those that a cache counts, (lines, 1).
        self.rope_deltas: torch.Tensor | None = None
        # What the pointer points to in the pictures of a cache.
        self.picture_keys: torch.Tensor | None = None
        self.picture_values: torch.Tensor | None = None
        self.picture_numbers: torch.Tensor | None = None
        # And what CTC hears in them, (lines, steps, tokens).
        self.picture_heard: torch.Tensor | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Pointer):
            module.reset()
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Module:
        """Return the characters' embeddings."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def get_output_embeddings(self) -> nn.Module:
        """Return what scores characters, whose weights are the embeddings'."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> ReaderForConditionalGeneration:
        """Switch to training; the neck's normalisation goes on with what the tower was trained with."""
        super().train(mode)
        if mode and self._learns_tower:
            self._tower = None
        for module in self.neck.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    @property
    def _learns_tower(self) -> bool:
        changes = self.tower_changes
        return changes is not None and any(weight.requires_grad for weight in changes.parameters())

    def steps(self, features: torch.Tensor) -> torch.Tensor:
        """Return the neck's description, (n, steps, 120), of the tower's features (n, steps, 384) of equal widths."""
        found: torch.Tensor = self.neck(features.transpose(1, 2).unsqueeze(2)).last_hidden_state
        return found

    def ctc_logits(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the scores of tokens at each step: (n, steps, tokens); the blank is one too."""
        table: Any = self.get_input_embeddings().weight
        return nn.functional.linear(self.projector.to_text(steps) * self.projector.scale, table, self.ctc_bias)

    def tokens_of(self, steps: torch.Tensor) -> list[torch.Tensor]:
        """Return what the tokens of lines are made of, (m, width) each, from the neck's steps, (n, steps, width).

        A step that shows no character gives none; steps side by side that show the same one, by the characters' scores,
        give their mean, as in CTC.
        """
        shown = self.projector.shown(steps)
        line, place = shown.nonzero(as_tuple=True)
        chosen = steps[shown]
        with torch.no_grad():
            scores = self.ctc_logits(chosen)
            scores[:, : self.config.blank_token_id + 1] = -math.inf
            character = scores.argmax(1)
            fresh = torch.ones_like(line, dtype=torch.bool)
            fresh[1:] = (line[1:] != line[:-1]) | (place[1:] != place[:-1] + 1) | (character[1:] != character[:-1])
            group = fresh.cumsum(0) - 1
            count = torch.bincount(group)
        sums = chosen.new_zeros(len(count), chosen.shape[1]).index_add(0, group, chosen)
        lengths = torch.bincount(line[fresh], minlength=len(steps)).tolist()
        return list(torch.split(sums / count[:, None], lengths))

    def picture_features(self, pixel_values: torch.Tensor, pixel_widths: torch.Tensor) -> list[torch.Tensor]:
        """Run the tower: a tensor of (width / 8, 384) for each of the lines, cut to their widths in pixels."""
        pixels = pixel_values.detach().to("cpu", torch.float32).numpy()
        lines = [line[:, :, :width] for line, width in zip(pixels, pixel_widths.tolist(), strict=True)]
        if self.training and self.tower_changes is not None and self._learns_tower:
            return self._learnt_features(lines, self.tower_changes)
        if self._tower is None:
            self._tower = Tower(changes=self.tower_changes.weights() if self.tower_changes is not None else None)
        # A beam's paths share a picture, and stand side by side.
        fresh = [not place or not np.array_equal(line, lines[place - 1]) for place, line in enumerate(lines)]
        found = self._tower.features([line for line, new in zip(lines, fresh, strict=True) if new])
        tensors = [torch.from_numpy(one).to(self.device, self.dtype) for one in found]
        return [tensors[place - 1] for place in np.cumsum(fresh).tolist()]

    def _learnt_features(self, lines: Sequence[Pixels], changes: TowerChanges) -> list[torch.Tensor]:
        """Run the tower so that its changes can be learnt."""
        if self._early is None:
            self._early = (Tower(end=LAST_STAGES), LastStages(changes).to(self.device))
        tower, stages = self._early
        maps = tower.maps(lines)
        features: list[Any] = [None] * len(lines)
        for places in _alike([one.shape[-1] for one in maps]):
            together = torch.from_numpy(np.stack([maps[place] for place in places])).to(self.device)
            for place, found in zip(places, stages(together).to(self.dtype), strict=True):
                features[place] = found
        return features

    def prefixes(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return what the tokens of lines are made of, (m, width) each, from the tower's (steps, 384) each."""
        return self._read_lines(features)[0]

    def _read_lines(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Return what lines' tokens are made of, and what CTC hears, (lines, steps, tokens), where that has a share."""
        lengths = [len(found) for found in features]
        prefixes: list[Any] = [None] * len(features)
        heard: torch.Tensor | None = None
        if self.config.ctc_share:
            shape = (len(features), max(lengths), self.config.text_config.vocab_size)
            heard = torch.zeros(shape, device=self.device)
            heard[:, :, self.config.blank_token_id] = 1.0
        for places in _alike(lengths):
            steps = self.steps(torch.stack([features[place] for place in places]))
            for place, tokens in zip(places, self.tokens_of(steps), strict=True):
                prefixes[place] = tokens
            if heard is not None:
                heard[places, : lengths[places[0]]] = self.ctc_logits(steps).float().softmax(-1)
        return prefixes, heard

    def look(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *,
        pixel_values: torch.Tensor | None = None, pixel_widths: torch.Tensor | None = None,
        features: Sequence[torch.Tensor] | None = None, short: bool = True, **others: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Look at the pictures: how many tokens a line takes is known only then.

        Parameters
        ----------
        input_ids, attention_mask
            (n, length): as the processor gives them, with a place for every step of a line, padded on the left.
        pixel_values, pixel_widths, features
            As in `forward`.
        short
            Whether to cut off what all rows have too much on the left.
        others
            Returned as they are.

        Returns
        -------
        dict
            ``input_ids`` and ``attention_mask`` with as many places as tokens are wanted, at the places' end;
            ``prefix``, what they are made of: (n, tokens, width), filled up on the left; and ``heard``, what CTC says
            of each step, where that has a share in reading.

        Raises
        ------
        ValueError
            Where a row has another number of places than its line has steps.
        """
        if features is None:
            if pixel_values is None:
                raise ValueError("there is no picture to look at: pixel_values or features are wanted")
            if pixel_widths is None:
                pixel_widths = torch.full((len(pixel_values),), pixel_values.shape[-1])
            features = self.picture_features(pixel_values, pixel_widths)
        image = input_ids == self.config.image_token_id
        counts, wanted = image.sum(1).tolist(), [len(found) for found in features]
        if counts != wanted:
            raise ValueError(
                f"the text has places for {counts} steps of the pictures, which have {wanted}; "
                "let the reader's processor make the inputs"
            )
        prefixes, heard = self._read_lines(features)
        ids, mask = input_ids.clone(), torch.ones_like(input_ids) if attention_mask is None else attention_mask.clone()
        for row, prefix in enumerate(prefixes):
            gone = image[row].nonzero()[: counts[row] - len(prefix), 0]
            ids[row, gone], mask[row, gone] = self.config.blank_token_id, 0
        first = int(mask.argmax(1).min()) if short else 0
        longest = max(map(len, prefixes))
        filled = torch.stack([nn.functional.pad(prefix, (0, 0, longest - len(prefix), 0)) for prefix in prefixes])
        seen = {**others, "input_ids": ids[:, first:], "attention_mask": mask[:, first:], "prefix": filled}
        return seen if heard is None else {**seen, "heard": heard}

    def _embeddings(self, input_ids: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Put the tokens of lines where the ids have places for them."""
        embeddings = self.get_input_embeddings()(input_ids)
        image = input_ids == self.config.image_token_id
        tokens = self.projector(prefix[self._shown(image, prefix)])
        filled: torch.Tensor = embeddings.masked_scatter(image.unsqueeze(-1), tokens.to(embeddings.dtype))
        return filled

    def _shown(self, image: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Return which places of a prefix are no filling, (n, tokens)."""
        return torch.arange(prefix.shape[1], device=prefix.device) >= prefix.shape[1] - image.sum(1, keepdim=True)

    def _picture(
        self, hidden: torch.Tensor, input_ids: torch.Tensor | None, prefix: torch.Tensor | None, cache: Any
    ) -> Picture | None:
        """Return what the pointer points to: of this picture, or of the one that a cache is of."""
        image = None if input_ids is None else input_ids == self.config.image_token_id
        if prefix is not None and image is not None and image.any():
            shown = self._shown(image, prefix)
            states = hidden.new_zeros((*shown.shape, hidden.shape[-1])).masked_scatter(
                shown.unsqueeze(-1), hidden[image]
            )
            picture = self.pointer.take(states, self.projector.to_text(prefix) * self.projector.scale, shown)
            self.picture_keys, self.picture_values, self.picture_numbers = (part.detach() for part in picture)
            return picture
        if cache is None or not int(cache.get_seq_length()):
            self.picture_keys = self.picture_values = self.picture_numbers = self.picture_heard = None
        if self.picture_keys is None or self.picture_values is None or self.picture_numbers is None:
            return None
        return self.picture_keys, self.picture_values, self.picture_numbers

    def _scores(self, hidden: torch.Tensor, places: torch.Tensor | None, picture: Picture | None) -> torch.Tensor:
        """Score tokens by the language model's states, (n, length, hidden), and by the picture: (n, length, tokens)."""
        if picture is None or places is None:
            logits = self.get_output_embeddings()(hidden)
        else:
            added, share = self.pointer(hidden, places, picture)
            logits = self.get_output_embeddings()(hidden + added) + share * self.ctc_bias
        filled: torch.Tensor = logits.index_fill(-1, self._never(logits.device), torch.finfo(logits.dtype).min)
        return filled

    def _with_expected(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Add what CTC expects next to the scores of the last places, (n, places, tokens).

        The ids are those of the text up to there, (n, length), with its start or, where that is in a cache, without.
        """
        if self.picture_heard is None or not self.config.ctc_share:
            return logits
        start = ids[0] == self.config.text_config.bos_token_id
        said = ids[:, int(start.int().argmax()) + 1 :] if bool(start.any()) else ids
        places = min(logits.shape[1], said.shape[1] + 1)
        expected = next_logprobs(
            self.picture_heard, said, blank=self.config.blank_token_id, end=self.config.text_config.eos_token_id,
            kept=slice(-places, None),
        )  # fmt: skip
        added = self.config.ctc_share * expected.clamp(min=_IMPOSSIBLE).to(logits.dtype)
        return torch.cat([logits[:, :-places], logits[:, -places:] + added], 1)

    def _never(self, device: torch.device) -> torch.Tensor:
        """Return the tokens that are never read: the special ones but the end."""
        first = torch.arange(self.config.blank_token_id + 1, device=device)
        return first[first != self.config.text_config.eos_token_id]

    def _places(self, input_ids: torch.Tensor, mask: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Return the numbers of places, (n, length): the picture's from 1, the text's from 0, which is its start's."""
        known = 0 if cache is None else int(cache.get_seq_length())
        if not known:
            valid = torch.ones_like(input_ids) if mask is None else mask[:, -input_ids.shape[1] :]
            image = (input_ids == self.config.image_token_id) & (valid > 0)
            text = (valid > 0) & ~image
            self.rope_deltas = -image.sum(1, keepdim=True)
            return torch.where(image, image.cumsum(1), (text.cumsum(1) - 1).clamp(min=0))
        length = input_ids.shape[1]
        counted = torch.full((len(input_ids), 1), known + length, device=input_ids.device)
        if mask is not None and mask.dim() == 2 and mask.shape[1] == known + length:
            counted = mask.sum(1, keepdim=True)
        deltas = torch.zeros_like(counted) if self.rope_deltas is None else self.rope_deltas
        if len(deltas) not in (1, len(counted)):
            # A beam's paths stand side by side.
            deltas = deltas.repeat_interleave(len(counted) // len(deltas), 0)
        return counted + deltas - length + torch.arange(length, device=input_ids.device)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_widths: torch.Tensor | None = None,
        features: Sequence[torch.Tensor] | None = None,
        prefix: torch.Tensor | None = None,
        heard: torch.Tensor | None = None,
        said: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> ReaderOutput:
        """Predict the next token.

        Parameters
        ----------
        input_ids
            (n, length): one image token for each 8 pixels of a line's width, the start token, and the text. Tokens of
            a text stay in their places; of the picture's those that show nothing are hidden.
        pixel_values, pixel_widths
            Lines as `line_pixels` makes them, filled up to one width, (n, 3, 48, width), and their widths, (n,).
        features
            In their place the tower's features of the lines, (width / 8, 384) each.
        prefix, heard
            In their place what `look` returned, with its ids and mask. To generate with a cache this is the way, since
            a cache does not know what is hidden; `generate` goes it by itself.
        said
            With a cache, the whole text up to here with its start, (n, length); `generate` gives it.
        labels
            (n, length), -100 where nothing is to be learnt.

        Returns
        -------
        ReaderOutput
        """
        steps: list[int] | None = None
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("the reader needs input_ids or inputs_embeds")
            if prefix is None and (features is not None or pixel_values is not None):
                seen = self.look(
                    input_ids, attention_mask, pixel_values=pixel_values, pixel_widths=pixel_widths, features=features,
                    short=False,
                )  # fmt: skip
                steps = (input_ids == self.config.image_token_id).sum(1).tolist()
                input_ids, attention_mask, prefix = seen["input_ids"], seen["attention_mask"], seen["prefix"]
                heard = seen.get("heard")
            if input_ids is None:
                raise ValueError("there is no text to go on from: input_ids are wanted")
            if attention_mask is None and past_key_values is None:
                # Without a mask the text would be taken for a sequence of its own, since its places begin anew.
                attention_mask = torch.ones_like(input_ids)
            position_ids = self._places(input_ids, attention_mask, past_key_values)
            if prefix is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self._embeddings(input_ids, prefix)
        known = past_key_values is not None and int(past_key_values.get_seq_length()) > 0
        found = self.language_model.model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache, **kwargs,
        )  # fmt: skip
        hidden = found.last_hidden_state
        if prefix is not None:
            self.picture_heard = heard
        picture = self._picture(hidden, input_ids, prefix, past_key_values if known else None)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else logits_to_keep
        if isinstance(kept, int):
            kept = slice(None)
        logits = self._scores(hidden[:, kept], None if position_ids is None else position_ids[:, kept], picture)
        # Where CTC rules out what is to be learnt its factor would drown all else; the pointer hears it all the same.
        if input_ids is not None and not self.training:
            logits = self._with_expected(logits, input_ids if said is None else said)
        loss = None
        further = None
        if self.training and heard is not None and input_ids is not None and steps and self.config.ctc_weight:
            further = self.config.ctc_weight * self._ctc_loss(heard, steps, input_ids, attention_mask)
        if labels is not None:
            # What is never read is not to be learnt.
            learnt = labels.masked_fill(torch.isin(labels, self._never(labels.device)), -100)
            loss = self.loss_function(logits, learnt, vocab_size=self.config.text_config.vocab_size, **kwargs)
            if further is not None:
                # Where batches make a step together, each has its share of the tokens in it.
                count = kwargs.get("num_items_in_batch")
                loss = loss + (further if count is None else further * (learnt[:, 1:] != -100).sum() / count)
        return ReaderOutput(
            loss=loss, logits=logits, past_key_values=found.past_key_values, hidden_states=found.hidden_states,
            attentions=found.attentions, further_loss=further,
        )  # fmt: skip

    def _ctc_loss(
        self, heard: torch.Tensor, steps: Sequence[int], ids: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return CTC's loss, in nats a token, of the texts in ids, (n, length), by what it hears of their pictures."""
        # What is special has ids up to the blank's.
        said = ids > self.config.blank_token_id
        said = said if mask is None else said & (mask > 0)
        texts = [row[kept].tolist() for row, kept in zip(ids, said, strict=True)]
        return text_loss(heard.clamp(min=LEAST).log(), steps, texts, blank=self.config.blank_token_id)

    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """Generate as transformers does, after a look at the pictures; what is returned begins with `look`'s ids."""
        if inputs is not None:
            kwargs["input_ids"] = inputs
        if kwargs.get("prefix") is None and (kwargs.keys() & {"pixel_values", "features"}):
            kwargs = self.look(**kwargs)
        # Not copied for each path of a beam, as tensors among the arguments are.
        self._heard = kwargs.pop("heard", None)
        return super().generate(**kwargs)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Give the picture with the prompt, and not again with each further token."""
        prefix = kwargs.pop("prefix", None)
        first = kwargs.get("is_first_iteration", False)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if prefix is not None and (first or not kwargs.get("use_cache", True)):
            inputs |= {"prefix": prefix, "heard": self._heard}
        return {**inputs, "said": input_ids}


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Return the places of equal lengths."""
    found: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        found.setdefault(length, []).append(place)
    return list(found.values())


__all__ = ["ReaderForConditionalGeneration", "ReaderOutput"]
