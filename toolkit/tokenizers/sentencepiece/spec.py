"""Tokenizer ``sentencepiece``: sub-word units learned from the training split (Kudo and Richardson 2018)."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from toolkit.config.spec import option, spec
from toolkit.errors import DataError, reading

FILE = "sentencepiece.model"
BLANK, UNKNOWN = 0, 1
SPACE = "▁"  # SentencePiece's symbol for a space


class SentencePieceTokenizer:
    """Converter of text to ids and back. Text is normalised to Unicode NFC; runs of spaces become one.

    Id 0 is the CTC blank and the boundary of translations, a control symbol that no text contains; id 1 is the unknown
    token, for characters that the units cannot spell, and is decoded as ``⁇``.

    Args:
        model: the serialised SentencePiece model.
    """

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size: int = self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of the units."""
        return self._processor.encode(unicodedata.normalize("NFC", text))

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Encode each text, on all cores."""
        return self._processor.encode([unicodedata.normalize("NFC", text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of these ids; blanks are skipped."""
        return self._processor.decode([int(i) for i in ids])

    def unknown(self, text: str) -> list[str]:
        """List the characters of ``text`` that the units cannot spell, each once, in order."""
        characters = dict.fromkeys(unicodedata.normalize("NFC", text))
        return [c for c in characters if self._processor.piece_to_id(SPACE if c == " " else c) == UNKNOWN]


@spec
class SentencePiece:
    """Byte-pair encoding (Sennrich et al. 2016) or a unigram language model (Kudo 2018) over characters.

    Learning runs on one thread, since the unigram model depends on the number of threads. It uses the whole training
    split, since SentencePiece's sampling is not reproducible; 330,000 sentences take 1 s (BPE) or 10 s (unigram).
    """

    column: ClassVar[str] = "text"

    algorithm: Literal["bpe", "unigram"] = option("bpe", "algorithm that learns the units")
    vocab_size: int = option(
        256, "number of units, including the blank and the unknown token; more than the data supports is refused", ge=3
    )
    character_coverage: float = option(
        1.0,
        "fraction of the training split's characters that the units spell; the rarest become unknown. Values below 1 "
        "suit scripts of many thousand characters",
        ge=0.98,
        le=1,
    )
    joint: bool = option(True, "translation: one vocabulary for both languages; false: one for each")

    def learn(self, texts: Iterable[str], folder: Path) -> None:
        """Learn the units of ``texts`` and write them into ``folder``.

        Raises:
            DataError: ``vocab_size`` is less than the characters need or more than the texts give.
        """
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([unicodedata.normalize("NFC", text) for text in texts]),
                model_writer=model,
                model_type=self.algorithm,
                vocab_size=self.vocab_size,
                character_coverage=self.character_coverage,
                normalization_rule_name="identity",
                byte_fallback=False,
                pad_id=BLANK,
                pad_piece="<blank>",
                unk_id=UNKNOWN,
                bos_id=-1,
                eos_id=-1,
                max_sentence_length=1 << 20,  # longer lines would be skipped silently
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(f"tokenizer.vocab_size: found {self.vocab_size}; {_reason(str(error))}") from error
        (folder / FILE).write_bytes(model.getvalue())

    def load(self, folder: Path) -> SentencePieceTokenizer:
        """Load the tokenizer that :meth:`learn` wrote into ``folder``.

        Raises:
            DataError: it is missing or damaged.
        """
        path = folder / FILE
        with reading(path, "units"):
            tokenizer = SentencePieceTokenizer(path.read_bytes())
        if not tokenizer.size:
            raise DataError(f"{path}: holds no units, expected a model written by a run")
        return tokenizer


def _reason(message: str) -> str:
    """Translate SentencePiece's error message to the option of the config."""
    if most := re.search(r"<= (\d+)", message):
        return f"the training split gives no more than {most[1]} units: set it to a value <= {most[1]}"
    if least := re.search(r"\d+ vs (\d+)", message):
        return f"the training split's characters need {least[1]} units: set it to a value >= {least[1]}"
    return f"the training split: {message.split('] ')[-1].strip() or message}"
