"""SentenceConstraint against brute force over all sentences, and the laws of its scores; real tokenizers and search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SENTENCES, picture
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from caprag.recognition.constrained import Mode, Node, SentenceConstraint, TokenTrie, step

hub: Any = transformers  # its annotations differ from version to version

LINES = (*SENTENCES, "我不知道", "我不知道他在", "今天天氣很好", "社交方式", "這是我們的機會")
"""Some begin others, some share their beginnings, one has two lines."""

PROMPT = (7, 3, 11, 5)
ROOM = 25

Row = tuple[int, ...]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def byte_level() -> Any:
    return tiny_models.tokenizer()


def word_piece() -> Any:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    specials = ["[PAD]", "[UNK]", "[SEP]"]
    backend.train_from_iterator(
        LINES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials, show_progress=False)
    )
    return hub.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]"
    )


def by_character() -> Any:
    characters = sorted({character for line in LINES for character in line})
    words = {word: place for place, word in enumerate(["<pad>", "<unk>", "</s>", *characters])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return hub.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


@pytest.fixture(scope="module", params=[byte_level, word_piece, by_character], ids=lambda make: str(make.__name__))
def tokens(request: pytest.FixtureRequest) -> Any:
    return request.param()


def language_model(tokenizer: Any, seed: int = 0) -> Any:
    """A random Llama with a distribution that is far from even."""
    config = hub.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = hub.LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.6 / parameter.shape[1] ** 0.5, generator=generator)
    return model


def teacher_forced(model: Any, row: Sequence[int], end: int, prompt: Sequence[int] = PROMPT) -> float:
    """ln p(row, end | prompt), from one plain pass."""
    ids = torch.tensor([[*prompt, *row, end]])
    with torch.no_grad():
        table = model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, ids.shape[1] - 1)
    return float(sum(table[place, ids[0, place + 1]] for place in places))


def search(
    model: Any,
    tokenizer: Any,
    constraint: SentenceConstraint | None,
    beams: int,
    *,
    prompts: Sequence[Row] = (PROMPT,),
    room: int = ROOM,
) -> list[list[tuple[Row, float]]]:
    """For each prompt the tokens of the finished texts and what the search says their scores are."""
    end = tokenizer.eos_token_id
    length = len(prompts[0])
    made = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), length, dtype=torch.long),
        logits_processor=(
            None if constraint is None else [constraint.processor(prompt_length=length, eos_token_ids=[end])]
        ),
        generation_config=hub.GenerationConfig(
            num_beams=beams, num_return_sequences=beams, max_new_tokens=room + 1, do_sample=False, length_penalty=0.0,
            early_stopping=False, output_scores=True, return_dict_in_generate=True, eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
        ),
    )  # fmt: skip
    found = []
    for row, score in zip(made.sequences[:, length:].tolist(), made.sequences_scores.tolist(), strict=True):
        if score > -1e8 and end in row:  # the others are beams that were never filled, or broke off
            found.append((tuple(row[: row.index(end)]), score))
        else:
            found.append(((), -math.inf))
    return [[item for item in found[i : i + beams] if item[1] > -math.inf] for i in range(0, len(found), beams)]


def read(tokenizer: Any, row: Sequence[int]) -> str:
    return str(tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def readable(tokenizer: Any) -> dict[Row, str]:
    """The lines as tokens; those that a tokenizer can't write are not among them."""
    rows = {tuple(tokenizer(line, add_special_tokens=False)["input_ids"]): line for line in LINES}
    return {row: line for row, line in rows.items() if tokenizer.unk_token_id not in row}


# The trie


rows_of_tokens = st.lists(st.lists(st.integers(0, 4), max_size=5).map(tuple), max_size=30)


@given(rows_of_tokens)
@settings(deadline=None)
def test_trie_knows_what_a_dictionary_knows(rows: list[Row]) -> None:
    trie = TokenTrie(rows)
    assert len(trie) == len(set(rows))
    assert trie.longest == max(map(len, rows), default=0)
    prefixes = {row[:length] for row in rows for length in range(len(row) + 1)}
    nodes: dict[Row, Node] = {(): trie.root}
    for prefix in sorted(prefixes, key=len):
        branches = trie.branches(nodes[prefix])
        further = sorted({longer[-1] for longer in prefixes if longer and longer[:-1] == prefix})
        assert branches.tokens.tolist() == further
        assert branches.ends == (prefix in rows)
        for token in range(-1, 6):
            node = step(branches, token)
            assert (node is not None) == (token in further)
            if node is not None:
                longer_one = (*prefix, token)
                nodes[longer_one] = node
    assert nodes.keys() == prefixes | {()}
    assert all((row in trie) == (row in set(rows)) for row in [*prefixes, (9,), (0, 0, 0, 0, 0, 0)])
    assert "text" not in trie
    assert 3 not in trie


def test_trie_is_small() -> None:
    draw = np.random.default_rng(0)
    trie = TokenTrie(tuple(row) for row in draw.integers(0, 150_000, size=(20_000, 12)).tolist())
    assert trie.nbytes <= 20_001 * 8 + 20_000 * 12 * 4
    assert trie.highest < 150_000


def test_order_of_sentences_changes_nothing(tokens: Any) -> None:
    one = SentenceConstraint(LINES, tokens)
    other = SentenceConstraint(reversed([*LINES, *LINES]), tokens)
    todo = [(one.trie.root, other.trie.root)]
    while todo:
        left, right = todo.pop()
        a, b = one.trie.branches(left), other.trie.branches(right)
        assert left == right
        assert a.ends == b.ends
        assert a.tokens.tolist() == b.tokens.tolist()
        todo += zip(a.nodes, b.nodes, strict=True)


# Hard


@pytest.mark.parametrize("seed", range(3))
def test_hard_is_the_best_of_all_sentences(tokens: Any, seed: int) -> None:
    model = language_model(tokens, seed)
    rows = readable(tokens)
    truth = {row: teacher_forced(model, row, tokens.eos_token_id) for row in rows}
    constraint = SentenceConstraint(LINES, tokens, "hard")
    assert constraint.left_out == len(LINES) - len(rows)
    (found,) = search(model, tokens, constraint, beams=len(LINES))
    assert [row for row, _ in found] == sorted(truth, key=lambda row: -truth[row])
    assert [score for _, score in found] == pytest.approx([truth[row] for row, _ in found], abs=1e-3)


@pytest.mark.parametrize("beams", [2, 3, 20])
def test_hard_says_sentences_only(tokens: Any, beams: int) -> None:
    model = language_model(tokens, 5)
    texts = {read(tokens, row) for row in readable(tokens)}
    constraint = SentenceConstraint(LINES, tokens, "hard")
    (found,) = search(model, tokens, constraint, beams)
    assert found
    for row, _ in found:
        assert read(tokens, row) in texts
        assert constraint.adjustment(row) == 0.0


def test_hard_holds_for_greedy_search_and_for_sampling(tokens: Any) -> None:
    model = language_model(tokens, 1)
    texts = {read(tokens, row) for row in readable(tokens)}
    constraint = SentenceConstraint(LINES, tokens, "hard")
    end = tokens.eos_token_id
    prompts = torch.tensor([PROMPT, (3, 3, 3, 3), (9, 8, 7, 6)])
    for settings_ in ({"do_sample": False}, {"do_sample": True, "num_return_sequences": 4, "top_k": 0}):
        torch.manual_seed(0)
        made = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            logits_processor=[constraint.processor(prompt_length=len(PROMPT), eos_token_ids=[end])],
            generation_config=hub.GenerationConfig(
                max_new_tokens=ROOM + 1, eos_token_id=end, pad_token_id=tokens.pad_token_id, **settings_
            ),
        )
        for row in made[:, len(PROMPT) :].tolist():
            assert read(tokens, row[: row.index(end)]) in texts


def test_hard_never_breaks_a_character() -> None:
    """Of a sentence of which no piece was trained every character is three tokens."""
    tokenizer = byte_level()
    sentence = "龜鼈黿"
    constraint = SentenceConstraint([sentence], tokenizer, "hard")
    (row,) = {tuple(tokenizer(sentence)["input_ids"])}
    assert len(row) == 9
    (found,) = search(language_model(tokenizer), tokenizer, constraint, beams=4)
    assert {read(tokenizer, said) for said, _ in found} == {sentence}


# Soft


def test_soft_law(tokens: Any) -> None:
    """A finished text's score is its log-probability, and for a sentence the bonus of its tokens."""
    rows = readable(tokens)
    seen: set[bool] = set()
    for seed, bonus in enumerate((1.0, 4.0, 8.0, 12.0)):
        model = language_model(tokens, seed)
        constraint = SentenceConstraint(LINES, tokens, "soft", bonus)
        (found,) = search(model, tokens, constraint, beams=12, room=63)
        for row, score in found:
            expected = teacher_forced(model, row, tokens.eos_token_id) + (bonus * len(row) if row in rows else 0.0)
            assert score == pytest.approx(expected, abs=2e-3)
            assert constraint.adjustment(row) == (bonus * len(row) if row in rows else 0.0)
            seen.add(row in rows)
    assert seen == {True, False}


def test_soft_pays_back_step_by_step() -> None:
    """Every text, also one that leaves the trie and comes back to a sentence's tokens, step by step."""
    tokenizer = by_character()
    end = tokenizer.eos_token_id
    constraint = SentenceConstraint(LINES, tokenizer, "soft", 0.75)
    processor = constraint.processor(prompt_length=2, eos_token_ids=[end])
    draw = torch.Generator().manual_seed(0)
    for text in ("我不知道", "我不知道他", "我不天氣", "氣我不知道", "我不知道他在哪裡好", "", "社"):
        row = tokenizer(text)["input_ids"]
        total = 0.0
        for place, token in enumerate([*row, end]):
            scores = torch.randn(1, len(tokenizer), generator=draw)
            kept = scores.clone()
            changed = processor(torch.tensor([[1, 1, *row[:place]]]), scores)
            assert torch.equal(scores, kept)
            total += float(changed[0, token] - scores[0, token])
        assert total == pytest.approx(constraint.adjustment(row), abs=1e-5)
        assert constraint.adjustment(row) == (0.75 * len(row) if text in LINES else 0.0)


def test_soft_without_bonus_is_no_constraint(tokens: Any) -> None:
    model = language_model(tokens, 2)
    constraint = SentenceConstraint(LINES, tokens, "soft", 0.0)
    assert search(model, tokens, constraint, 5) == search(model, tokens, None, 5)


def test_soft_with_a_huge_bonus_is_hard(tokens: Any) -> None:
    """With sentences of one length, which all get the same bonus."""
    lengths = [len(row) for row in readable(tokens)]
    alike = max(set(lengths), key=lengths.count)
    lines = [line for row, line in readable(tokens).items() if len(row) == alike]
    for seed in range(3):
        model = language_model(tokens, seed)
        (soft,) = search(model, tokens, SentenceConstraint(lines, tokens, "soft", 256.0), 20)
        (hard,) = search(model, tokens, SentenceConstraint(lines, tokens, "hard"), 20)
        said = [row for row, _ in soft if row in dict(hard)]
        assert said == [row for row, _ in hard]
        assert said == [row for row, _ in soft][: len(said)]


def test_bonus_turns_a_near_reading_into_the_sentence() -> None:
    """A model that prefers a sign nobody says is brought back by what its lead is worth, and no less."""
    tokenizer = by_character()
    end = tokenizer.eos_token_id
    good, bad = (tokenizer(text)["input_ids"] for text in ("社交方式", "社交方好"))
    lead = 3.0
    for bonus, expected in ((0.7, bad), (0.8, good)):
        processor = SentenceConstraint(["社交方式"], tokenizer, "soft", bonus).processor(
            prompt_length=1, eos_token_ids=[end]
        )
        totals = {}
        for row in (good, bad):
            total = 0.0
            for place, token in enumerate([*row, end]):
                scores = torch.full((1, len(tokenizer)), -20.0)
                scores[0, [good[place], bad[place]] if place < 4 else [end, end]] = torch.tensor([-lead, 0.0])
                if place < 3 or place == 4:
                    scores[0, token] = 0.0
                total += float(processor(torch.tensor([[1, *row[:place]]]), scores)[0, token])
            totals[tuple(row)] = total
        assert max(totals, key=lambda row: totals[row]) == tuple(expected)


# Rows and beams


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_batch_equals_singles(tokens: Any, mode: Mode) -> None:
    model = language_model(tokens, 3)
    constraint = SentenceConstraint(LINES, tokens, mode, 1.5)
    prompts = [PROMPT, (3, 3, 3, 3), (9, 8, 7, 6)]
    together = search(model, tokens, constraint, 4, prompts=prompts)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = search(model, tokens, constraint, 4, prompts=[prompt])
        assert [row for row, _ in alone] == [row for row, _ in found]
        assert [score for _, score in alone] == pytest.approx([score for _, score in found], abs=1e-3)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_order_of_beams_changes_nothing(mode: Mode) -> None:
    tokenizer = byte_level()
    constraint = SentenceConstraint(LINES, tokenizer, mode, 2.0)
    row = tokenizer(SENTENCES[0])["input_ids"]
    depth = 5
    beams = [row[:depth], [*row[: depth - 1], 40], tokenizer("我不知道")["input_ids"][:depth], [41] * depth]
    ids = torch.tensor([[1, 1, *beam] for beam in beams])
    scores = torch.randn(len(beams), len(tokenizer), generator=torch.Generator().manual_seed(0))
    used = constraint.processor(prompt_length=2, eos_token_ids=[tokenizer.eos_token_id])
    for step_ in range(depth + 1):  # a processor that saw the beams grow
        used(ids[:, : 2 + step_], scores)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 0, 1]):
        fresh = constraint.processor(prompt_length=2, eos_token_ids=[tokenizer.eos_token_id])
        for processor in (used, fresh):
            assert torch.equal(processor(ids[order], scores[order]), fresh(ids, scores)[order])


def test_several_ends_count_alike() -> None:
    tokenizer = by_character()
    constraint = SentenceConstraint(["我不知道"], tokenizer, "hard")
    row = tokenizer("我不知道")["input_ids"]
    processor = constraint.processor(prompt_length=0, eos_token_ids=[0, 2])
    scores = torch.zeros(1, len(tokenizer))
    open_ = processor(torch.tensor([row[:-1]]), scores)
    whole = processor(torch.tensor([row]), scores)
    assert torch.isfinite(open_).nonzero().tolist() == [[0, row[-1]]]
    assert torch.isfinite(whole).nonzero().tolist() == [[0, 0], [0, 2]]


def test_an_end_is_never_within_a_sentence() -> None:
    tokenizer = by_character()
    inner = tokenizer("不")["input_ids"][0]
    processor = SentenceConstraint(["我不知道"], tokenizer, "soft", 2.0).processor(
        prompt_length=0, eos_token_ids=[inner]
    )
    row = torch.tensor([tokenizer("我")["input_ids"]])
    changed = processor(row, torch.zeros(1, len(tokenizer)))
    assert float(changed[0, inner]) == -2.0


# A picture


@pytest.mark.parametrize("family", ["llava", "trocr"])
def test_hard_reads_a_picture_as_a_sentence(family: str, tmp_path: Path) -> None:
    folder = tiny_models.FAMILIES[family](tmp_path / family)
    model = hub.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = hub.AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    end = tokenizer.eos_token_id
    if family == "trocr":
        inputs = dict(processor(images=picture(0), return_tensors="pt"))
        start: Row = (tokenizer.bos_token_id,)
        length = 1
    else:
        asked = [{"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "讀"}]}]
        inputs = dict(
            processor.apply_chat_template(
                asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        )
        start, length = (), inputs["input_ids"].shape[1]
    constraint = SentenceConstraint(LINES, tokenizer, "hard", start=start)
    model.generation_config = hub.GenerationConfig()
    made = model.generate(
        **inputs,
        logits_processor=[constraint.processor(prompt_length=length, eos_token_ids=[end])],
        generation_config=hub.GenerationConfig(
            num_beams=4, max_new_tokens=ROOM + 1, eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=end, do_sample=False,
        ),
    )  # fmt: skip
    row = made[0, length:].tolist()
    assert row[: len(start)] == list(start)
    assert read(tokenizer, row[: row.index(end)]) in LINES


# What is kept and what is refused


def test_context_gives_a_second_way_with_a_space() -> None:
    tokenizer = byte_level()
    sentence = SENTENCES[0]
    bare, spaced = (tuple(tokenizer(text)["input_ids"]) for text in (sentence, " " + sentence))
    assert bare != spaced
    for context, ways in (("", {bare}), ("user\n", {bare}), ("ASSISTANT:", {bare, spaced})):
        constraint = SentenceConstraint([sentence], tokenizer, context=context)
        assert len(constraint.trie) == len(ways)
        assert all(way in constraint.trie for way in ways)


def test_sentences_are_written_as_they_follow_the_context() -> None:
    """A metaspace tokenizer begins a lone text with its space sign; after a context it does not."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.train_from_iterator(
        [f"ASSISTANT:{line}" for line in LINES],
        trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "</s>"], show_progress=False, max_token_length=1),
    )
    tokenizer = hub.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    alone = tokenizer("社交方式")["input_ids"]
    constraint = SentenceConstraint(["社交方式"], tokenizer, context="ASSISTANT:")
    assert alone[1:] in constraint.trie
    assert tokenizer.convert_ids_to_tokens(alone[0]) == "▁"


def test_long_foreign_and_special_sentences_are_left_out() -> None:
    tokenizer = by_character()
    constraint = SentenceConstraint(
        ["社交方式", "社交方式發生了變化", "鼈", "社</s>", "社\ufffd", ""], tokenizer, max_tokens=8
    )
    assert constraint.left_out == 4
    assert len(constraint.trie) == 2
    assert constraint.trie.longest == 4
    assert () in constraint.trie


def test_an_empty_sentence_is_an_answer_where_it_is_given() -> None:
    tokenizer = by_character()
    for sentences, allowed in ((["我"], False), (["我", ""], True)):
        processor = SentenceConstraint(sentences, tokenizer, "hard").processor(prompt_length=1, eos_token_ids=[2])
        changed = processor(torch.tensor([[1]]), torch.zeros(1, len(tokenizer)))
        assert math.isfinite(changed[0, 2]) == allowed


def test_wrong_arguments() -> None:
    tokenizer = by_character()
    with pytest.raises(ValueError, match="'firm'"):
        SentenceConstraint(["我"], tokenizer, "firm")  # type: ignore[arg-type]
    for bonus in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="bonus"):
            SentenceConstraint(["我"], tokenizer, bonus=bonus)
    with pytest.raises(ValueError, match="max_tokens"):
        SentenceConstraint(["我"], tokenizer, max_tokens=0)
    with pytest.raises(ValueError, match="no sentence to keep to: 1 left out"):
        SentenceConstraint(["鼈"], tokenizer)
    with pytest.raises(ValueError, match="no sentence"):
        SentenceConstraint([], tokenizer)
    constraint = SentenceConstraint(["我"], tokenizer)
    with pytest.raises(ValueError, match="end"):
        constraint.processor(prompt_length=1, eos_token_ids=[])
    with pytest.raises(ValueError, match="-1"):
        constraint.processor(prompt_length=-1, eos_token_ids=[2])
    with pytest.raises(ValueError, match="own tokenizer"):
        constraint.processor(prompt_length=1, eos_token_ids=[2])(torch.tensor([[1]]), torch.zeros(1, 3))
