"""Importing a tokenizer: one made here with the libraries' own tools; what is missing, broken or unfit is told."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qwen_core.errors import InputError
from qwen_core.tokenizer import SPECIALS, import_tokenizer, load_tokenizer, measure, save_tokenizer, train_tokenizer

LINES = ["The river flows to the sea 2024.", "河水流向大海，慢慢沉下细沙。", "def f(x):\n    return x + 1\n"] * 20


def saved(tokenizer, folder, **options):
    """Save as transformers does."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    return folder


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=380, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def sentence_piece():
    """As Llama's: blanks become a sign, what has no entry is spelt in bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "▁t", "he", "▁the"]
    model = models.BPE(
        {piece: number for number, piece in enumerate(pieces)},
        [("▁", "t"), ("h", "e"), ("▁t", "he")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer


def test_control_tokens_are_added_behind_the_last_id_and_transformers_agrees(tmp_path):
    given = byte_level()
    size = given.get_vocab_size()
    given.add_tokens([AddedToken("<tool>", normalized=False)])
    saved(given, tmp_path / "theirs")
    imported = import_tokenizer(tmp_path / "theirs", add_chat_tokens=True)
    save_tokenizer(imported, tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    assert tokenizer.vocab_size == size + 4 and tokenizer.endoftext_id == size + 1
    text = "The sea <tool> 河水"
    (ids,) = tokenizer.encode_batch([text])
    assert ids == AutoTokenizer.from_pretrained(tmp_path / "ours")(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    # every token tells its bytes: a token that is no control token, those of its name
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode()) and tokenizer.token_bytes()[size] == 6


def test_a_tokenizer_that_has_the_control_tokens_keeps_its_ids(tmp_path):
    save_tokenizer(train_tokenizer(iter([LINES]), 350, 2), tmp_path / "theirs")
    imported = import_tokenizer(tmp_path / "theirs" / "tokenizer.json", add_chat_tokens=False)
    assert imported.to_str() == Tokenizer.from_file(str(tmp_path / "theirs" / "tokenizer.json")).to_str()


def test_truncation_and_padding_that_a_file_brings_are_off(tmp_path):
    given = byte_level()
    given.add_special_tokens(list(SPECIALS))
    given.enable_truncation(4)
    given.enable_padding(length=64, pad_token=SPECIALS[0])
    saved(given, tmp_path)
    given.save(str(tmp_path / "tokenizer.json"))
    (ids,) = load_tokenizer(tmp_path).encode_batch([LINES[0]])
    assert 4 < len(ids) < 64


def with_ids(folder, renumber):
    """Save a tokenizer with other ids."""
    tree = json.loads(byte_level().to_str())
    vocabulary = tree["model"]["vocab"]
    tree["model"]["vocab"] = {piece: renumber(number) for piece, number in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    return len(vocabulary)


def test_ids_with_a_gap_count_up_to_the_largest(tmp_path):
    size = with_ids(tmp_path, lambda number: number + 1000 * (number >= 300))
    save_tokenizer(import_tokenizer(tmp_path, True), tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    assert tokenizer.vocab_size == len(tokenizer.token_bytes()) == size + 1000


def test_control_tokens_that_would_take_the_id_of_another_are_refused(tmp_path):
    with_ids(tmp_path, lambda number: number + 1)
    with pytest.raises(InputError, match="has ids with gaps"):
        import_tokenizer(tmp_path, True)


def test_sentence_piece_entries_tell_their_bytes_and_what_is_unknown(tmp_path):
    saved(sentence_piece(), tmp_path / "theirs", unk_token="<unk>")
    save_tokenizer(import_tokenizer(tmp_path / "theirs", True), tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    assert tokenizer.unknown_id == 0
    (ids,) = tokenizer.encode_batch(["the 河"])
    assert tokenizer.token_bytes()[ids].tolist() == [4, 1, 1, 1, 1]  # blank + the, blank, three bytes


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "it holds no tokenizer"),
        ({"tokenizer.model": "x"}, "it holds tokenizer.model, which is the slow form. Convert it once"),
        ({"vocab.json": "{}", "merges.txt": ""}, "vocab.json"),
        ({"tokenizer.json": "{broken"}, "cannot be read as a tokenizer"),
        ({"tokenizer.json": "[]"}, "cannot be read as a tokenizer"),
    ],
)
def test_a_folder_without_a_usable_file_is_told(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        import_tokenizer(tmp_path, True)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        import_tokenizer(tmp_path / "none", True)


def test_a_word_piece_model_is_refused(tmp_path):
    Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"is a WordPiece model, which loses blanks.*Take a BPE or Unigram one"):
        import_tokenizer(tmp_path, True)


def test_lacking_control_tokens_are_named_where_they_may_not_be_added(tmp_path):
    saved(byte_level(), tmp_path)
    with pytest.raises(InputError, match=r"lacks <\|endoftext\|>, <\|im_start\|>, <\|im_end\|>.*add_chat_tokens=true"):
        import_tokenizer(tmp_path, False)


def test_measures_tell_what_a_vocabulary_cannot_spell(tmp_path):
    model = models.Unigram([("<unk>", -9.0), ("▁", -1.0), ("a", -1.0), ("b", -1.0), ("▁ab", -0.5)], unk_id=0)
    given = Tokenizer(model)
    given.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    saved(given, tmp_path / "theirs", unk_token="<unk>")
    save_tokenizer(import_tokenizer(tmp_path / "theirs", True), tmp_path / "ours")
    figures = measure(load_tokenizer(tmp_path / "ours"), {"en": ["a ab"], "zh": ["海a"]})
    # a, ▁ab: four bytes in two tokens, two words; <unk>, a: one of two
    assert figures["bytes_per_token/en"] == 2 and figures["fertility/en"] == 1 and figures["unknown_share/en"] == 0
    assert figures["unknown_share/zh"] == 0.5 and figures["round_trip_share/zh"] == 0
